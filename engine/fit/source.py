"""What a fit's stream draws from: training shards that a step gathered, or a collection itself (engine.fit.pool_stream)."""

from dataclasses import dataclass
from typing import Protocol

from engine.fit.streams import Stream, StreamSpec, open_gathered
from engine.gather.training_set import TrainingSet
from engine.ground.steps import Output


class Source(Protocol):
    """A source of images to learn from. Pickles small."""

    @property
    def digest(self) -> str:
        """All that decides what is drawn."""

    @property
    def draws(self) -> int:
        """Draws per epoch."""

    @property
    def target_kind(self) -> str | None:
        """What the targets are (`labels.soft_tables.TargetKind`); None for images without targets."""

    def open(self, spec: StreamSpec) -> Stream:
        """The stream `spec` of this source. Raises ValueError for an empty source or a batch that the workers cannot share."""


@dataclass(frozen=True)
class GatheredSource:
    """The training shards of a gather step."""

    output: Output
    training_set: TrainingSet

    @property
    def digest(self) -> str:
        return self.output.digest

    @property
    def draws(self) -> int:
        return self.training_set.draws

    @property
    def target_kind(self) -> str:
        return self.training_set.kind

    def open(self, spec: StreamSpec) -> Stream:
        return open_gathered(self.training_set, spec)
