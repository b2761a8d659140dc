"""What `gather` makes and `fit` reads: shuffled training shards (schema.training) and how many draws each holds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingShard:
    """One Parquet file. `rows` images stand in it; `draws` is the sum of their counts; `bytes` its size."""

    path: str  # relative to the set's uri
    rows: int
    draws: int
    bytes: int


@dataclass(frozen=True)
class TrainingSet:
    """All shards of one set, in order; `uri` is the folder they are in."""

    uri: str
    shards: tuple[TrainingShard, ...]
    num_classes: int
    classes_hash: str
    kind: str = "distribution"
    """What the targets are (`labels.tables.Kind`)."""

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @property
    def draws(self) -> int:
        return sum(shard.draws for shard in self.shards)
