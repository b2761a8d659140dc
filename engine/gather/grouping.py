"""What to gather, decided before anything is read: groups of shards in a seeded order, each group one shuffled training shard."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ShardGroup:
    """The shards (n,) of one training shard, ascending: one pass over each."""

    unit: int
    shards: Ints


def group_shards(shards: Ints, rows: Ints, group_rows: int, seed: int) -> list[ShardGroup]:
    """Deal `shards` (n,), which hold `rows` (n,) picks each, into groups of about `group_rows` picks, in a seeded order, so that a sorted collection
    does not become a sorted training set. Deterministic in its arguments.
    """
    total = int(rows.sum())
    number = max(1, round(total / group_rows)) if shards.size else 0
    order = np.random.default_rng(seed).permutation(shards.size)
    # cut the dealt order where the running number of picks passes each group's share
    share = (np.cumsum(rows[order]) - rows[order]) * number // max(1, total)
    return [ShardGroup(unit, np.sort(shards[order[share == group]])) for unit, group in enumerate(np.unique(share))]
