"""Random predictions and the plainest possible selection from them, for the tests to compare with."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.labels.classes import ClassList
from engine.select import scores
from engine.settings.select import SelectSettings
from engine.tables import schema


@dataclass(frozen=True)
class Pool:
    """Predictions as plain arrays: addresses (N,), classes and log-odds (N, P)."""

    manifest: ClassList
    shard: npt.NDArray[np.int32]
    row: npt.NDArray[np.int32]
    classes: npt.NDArray[np.integer]
    log_odds: npt.NDArray[np.float16]

    def table(self, rows: npt.NDArray[np.integer] | slice = slice(None)) -> pa.Table:
        """The predictions table of some rows, in that order."""
        columns = (self.shard[rows], self.row[rows], self.classes[rows], self.log_odds[rows])
        expected = schema.predictions(len(self.manifest), self.manifest.hash, self.classes.shape[1])
        return scores.pack(*columns, expected)


def manifest(num_classes: int) -> ClassList:
    """A class list of any length."""
    return ClassList(tuple(f"class {i}" for i in range(num_classes)))


def random_pool(num_rows: int, num_classes: int, top_p: int, seed: int, confidence: float = 2.0) -> Pool:
    """Uneven classes and scores coarse enough to tie often."""
    random = np.random.default_rng(seed)
    prior = 1 / np.sqrt(np.arange(1, num_classes + 1))
    logits = random.normal(0, confidence, (num_rows, num_classes)) + np.log(prior)
    rest = np.stack([np.logaddexp.reduce(np.delete(logits, c, axis=1), axis=1) for c in range(num_classes)], axis=1)
    log_odds = np.round(logits - rest, 1)
    order = np.argsort(-log_odds, axis=1, kind="stable")[:, :top_p]
    address = random.choice(num_rows * 3, num_rows, replace=False)
    return Pool(
        manifest(num_classes),
        (address // 100).astype(np.int32),
        (address % 100).astype(np.int32),
        order,
        np.take_along_axis(log_odds, order, axis=1).astype(np.float16),
    )


def brute_force(pool: Pool, settings: SelectSettings) -> dict[tuple[int, int, int], tuple[int, int]]:
    """(class, shard, row) -> (rank, count), one image and one class at a time."""
    ranked: dict[int, list[tuple[float, int, int, int]]] = {}
    ties = scores.tie_hash(pool.shard, pool.row)
    for i in range(len(pool.shard)):
        for place in range(settings.classes_per_image):
            score = float(pool.log_odds[i, place])
            if 1 / (1 + np.exp(-score)) > settings.threshold:
                entry = (-score, int(ties[i]), int(pool.shard[i]), int(pool.row[i]))
                ranked.setdefault(int(pool.classes[i, place]), []).append(entry)
    wanted = quota_of(settings, pool.manifest)
    kept = {c: sorted(rows)[: wanted[c] if wanted else None] for c, rows in ranked.items()}
    kept = {c: rows for c, rows in kept.items() if rows}
    if settings.balance == "truncate" and kept:
        weight = {c: settings.prior.get(pool.manifest.names[c], 1) for c in range(len(pool.manifest))}
        kept = {c: rows for c, rows in kept.items() if weight[c]}
        for_each = min((len(rows) / weight[c] for c, rows in kept.items()), default=0)
        kept = {c: rows[: int(for_each * weight[c] + 1e-9)] for c, rows in kept.items()}
    chosen = {}
    for c, rows in kept.items():
        for rank, (_, _, shard, row) in enumerate(rows):
            count = 1
            if settings.balance == "duplicate":
                assert wanted is not None
                count = wanted[c] // len(rows) + (rank < wanted[c] % len(rows))
            chosen[c, shard, row] = (rank, count)
    return chosen


def quota_of(settings: SelectSettings, classes: ClassList) -> list[int] | None:
    """K of each class: one image after the other goes to the class that lacks most of its share."""
    if settings.per_class is None:
        return None
    if not settings.prior:
        return [settings.per_class] * len(classes)
    total = settings.per_class * len(classes)
    due = [total * settings.prior[name] / sum(settings.prior.values()) for name in classes.names]
    given = [int(one + 1e-9) for one in due]
    while sum(given) < total:
        lacking = [one - have for one, have in zip(due, given, strict=True)]
        given[lacking.index(max(lacking))] += 1
    return given


def as_dict(table: pa.Table) -> dict[tuple[int, int, int], tuple[int, int]]:
    """Pseudo-labels in the form of `brute_force`."""
    columns = (table[name].to_pylist() for name in ("class", "shard", "row", "rank", "count"))
    return {(c, shard, row): (rank, count) for c, shard, row, rank, count in zip(*columns, strict=True)}
