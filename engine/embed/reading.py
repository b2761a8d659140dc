"""Cached features, read back: whole parts, or the rows of some images."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.embed.shard_embedder import features_of
from engine.ground.steps import Output, Store, read_part, read_tables
from engine.select.addresses import addresses
from engine.tables import schema

Half = npt.NDArray[np.float16]


def read_all(features: Output, store: Store) -> tuple[pa.Table, Half]:
    """Every row of a cache in address order: columns `shard` and `row`, and the features float16 (N, D)."""
    read = [table for _, table in read_tables(features, store.fs, ["shard", "row", "features"])]
    where = pa.concat_tables(table.select(["shard", "row"]) for table in read)
    return where, np.concatenate([features_of(table) for table in read])


def read_rows(features: Output, store: Store, picked: pa.Table) -> Half:
    """Features float16 (n, D) of the images of `picked` (columns `shard` and `row`), row by row. Raises ValueError for an image without features."""
    wanted = addresses(picked)
    shards = set(np.unique(wanted >> 32).tolist())
    found: Half | None = None
    left = len(wanted)
    for part in features.parts(store.fs):
        if part.unit not in shards:
            continue
        table = read_part(features, store.fs, part, ["shard", "row", "features"])
        own = addresses(table)
        mine = np.flatnonzero(wanted >> 32 == part.unit)
        place = np.minimum(np.searchsorted(own, wanted[mine]), len(own) - 1)
        known = own[place] == wanted[mine]
        values = features_of(table)
        found = np.empty((len(wanted), values.shape[1]), np.float16) if found is None else found
        found[mine[known]] = values[place[known]]
        left -= int(known.sum())
    if left or found is None:
        raise ValueError(
            f"{features.step}: no features of {left} of {len(wanted)} images. Embed their collection again."
        )
    return found


def feature_dim(features: Output, store: Store) -> int:
    """Values per image of a cache. Raises ValueError for one of no shard."""
    for _, table in read_tables(features, store.fs, ["features"]):
        return int((table.schema.metadata or {})[schema.FEATURE_DIM])
    raise ValueError(f"{features.step}: no images were embedded")


def chunked(values: Half, rows: int) -> Iterator[Half]:
    """Consecutive groups of at most `rows` rows."""
    return (values[i : i + rows] for i in range(0, len(values), rows))


def check_same_network(caches: Sequence[Output]) -> None:
    """Raise ValueError unless all features were made by one network: those of two have nothing in common."""
    networks = {cache.summary["model"] for cache in caches}
    if len(networks) > 1:
        raise ValueError(
            f"features of different networks ({', '.join(sorted(networks))}) cannot be used together: embed all collections with one"
        )
