"""What to gather, decided before anything is read: groups of shards in a seeded order, each group one shuffled training shard."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class ShardGroup:
    """The picks of one training shard: rows (shard, row, classes, weights, count), ordered by address."""

    unit: int
    picks: pa.Table


PICKS = ("shard", "row", "classes", "weights", "count")


def group_shards(picks: pa.Table, group_rows: int, seed: int) -> list[ShardGroup]:
    """Deal the shards that hold a pick into groups of about `group_rows` rows, in a seeded order, so that a sorted collection does not become a
    sorted training set. Within a group the rows stay in address order: one pass over each shard. Shards without picks are in no group.

    Deterministic in (picks as a set, group_rows, seed).
    """
    picks = picks.select(PICKS).sort_by([("shard", "ascending"), ("row", "ascending")])
    shard = picks["shard"].to_numpy()
    holding, starts, counts = np.unique(shard, return_index=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(holding.size)
    number = max(1, round(int(counts.sum()) / group_rows)) if holding.size else 0
    # cut the dealt order where the running number of rows passes each group's share
    share = (np.cumsum(counts[order]) - counts[order]) * number // max(1, int(counts.sum()))
    return [
        ShardGroup(unit, pa.concat_tables([picks.slice(starts[i], counts[i]) for i in sorted(order[share == group])]))
        for unit, group in enumerate(np.unique(share))
    ]
