"""Predict with any model: a network reads pixels, a head reads the cached features of its network."""

from engine.ground.run import Run
from engine.ground.steps import Output, verb_of
from engine.images.scope import Scope
from engine.predict import pipeline
from engine.predict.predictor import CLASSES
from engine.probe import fit
from engine.probe.cached import predict_cached
from engine.settings.predict import PredictSettings
from engine.tasks.answers import Answers


def predict(
    run: Run, label: str, model: Output, scope: Scope, settings: PredictSettings, answers: Answers = CLASSES
) -> Output:
    """Predictions of `model` for every image of `scope` that is neither rejected nor excluded, as `predict.pipeline.predict` makes them."""
    if verb_of(model) == fit.VERB:
        return predict_cached(run, label, model, scope, settings)
    return pipeline.predict(run, label, model, scope, settings, answers)
