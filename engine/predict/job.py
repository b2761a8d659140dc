"""What a prediction worker is given: one value, from the driver to every process."""

from dataclasses import dataclass

from engine.ground.steps import Output, Step
from engine.images.scope import Scope
from engine.predict.predictor import CLASSES
from engine.settings.predict import PredictSettings
from engine.tasks.answers import Answers


@dataclass(frozen=True)
class PredictJob:
    """Predict the shards of `scope` with `model` and put the parts into `step`."""

    step: Step
    scope: Scope
    model: Output
    settings: PredictSettings
    """Those of the step, or after its plan the plan's."""
    threads: int = 1
    """torch's, inside one worker."""
    decode_threads: int = 0
    """Threads that read and decode ahead of the network; 0: none."""
    answers: Answers = CLASSES
    """What is kept of the network's outputs."""
