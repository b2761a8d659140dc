"""The temperature that makes a teacher's confidence mean what it says, fitted on labelled images before it labels the pool."""

import time

import numpy as np
import pyarrow as pa

from engine.evaluate.evaluate import labelled_inputs, read_all
from engine.ground.progress import log_event
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Step
from engine.images.scope import Scope
from engine.labels.classes import ClassList
from engine.metrics.temperature import Temperature, fit_temperature
from engine.probe.predicting import predict
from engine.select.scores import classes_of, log_probability, scores_of
from engine.settings.predict import PredictSettings

REVISION = 3


def calibrate(
    run: Run, label: str, model: Output, scope: Scope, classes: ClassList, settings: PredictSettings
) -> Output:
    """Fit the temperature on images never trained on: summary {temperature, images, ece_before, ece_after, nll_…, brier_…}.

    Raises TooManyRejectsError when more than `scope.max_rejected_percent` of them cannot be read.
    """
    whole = settings.for_evaluation().model_copy(update={"top_p": len(classes), "temperature": 1.0})
    predictions = predict(run, f"{label} predict", model, scope, whole)

    def work(step: Step) -> Output:
        started = time.time()
        table = read_all(predictions, run, classes)
        fitted = fit_on(table, scope.collection.class_indices(classes)[scope.collection.at(table)])
        log_event(
            label,
            f"temperature {fitted.value:.3f} on {fitted.num_images} images:"
            f" calibration error {fitted.before.error:.3f} before, {fitted.after.error:.3f} after (on halves that it was not fitted on)",
        )
        summary = {
            "temperature": fitted.value,
            "images": fitted.num_images,
            "ece_before": fitted.before.error,
            "ece_after": fitted.after.error,
            "nll_before": fitted.before.nll,
            "nll_after": fitted.after.nll,
            "brier_before": fitted.before.brier,
            "brier_after": fitted.after.brier,
        }
        return step.commit([], summary, started)

    inputs = labelled_inputs(model, predictions, scope, classes)
    return run.find_or_run_step(label, StepRecord("calibrate", REVISION, {}, inputs), work)


def fit_on(predictions: pa.Table, truth: np.ndarray) -> Temperature:
    """The temperature for predictions that hold all classes of N images whose true classes are `truth` (N,).

    Log-probabilities stand for the logits: they differ by a constant per image, which softmax does not see.
    """
    classes, log_odds = classes_of(predictions), scores_of(predictions)
    logits = np.empty(log_odds.shape)
    np.put_along_axis(logits, classes.astype(np.int64), log_probability(log_odds), axis=1)
    return fit_temperature(logits, truth)
