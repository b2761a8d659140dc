"""What a prediction worker is given: one value, from the driver to every process."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.ground.steps import Output, Step
from engine.images.scope import Scope
from engine.predict.predictor import CLASSES, Predictor
from engine.predict.shard_predictor import PredictedShard, ShardPredictor
from engine.settings.predict import PredictSettings
from engine.tasks.answers import Answers

PARQUET: dict[str, Any] = {
    "column_encoding": {"row": "DELTA_BINARY_PACKED", "classes": "BYTE_STREAM_SPLIT", "scores": "BYTE_STREAM_SPLIT"},
    "use_dictionary": ["shard"],
}
"""How the parts of predictions are encoded."""
ShardWorker = Callable[[Scope, Predictor, int], Callable[[int], PredictedShard]]
"""(what is read, the network, threads that decode ahead) to what makes the rows of a shard."""


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
    worker: ShardWorker = ShardPredictor
    """What makes a shard's rows."""
    parquet: Mapping[str, Any] = field(default_factory=lambda: PARQUET)
    """How they are encoded."""
