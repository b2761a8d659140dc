"""Stored scores: float16 log-odds, their order, their probabilities, and the predictions table that holds them.

A score is log p - log(1-p) rounded to float16. Selection compares scores as `order`: 16-bit integers in the same
order, exact and fast. People speak in probabilities, so a threshold becomes the one float16 value that splits the
stored scores exactly where the probability does.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.settings.select import RankBy
from engine.tables import schema

Half = npt.NDArray[np.float16]
ScoreOrder = npt.NDArray[np.uint16]

LOWEST = np.float16(-np.inf)
"""The cut that lets every finite score pass."""


def probability(log_odds: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Probabilities of log-odds, in float64: 1 / (1 + exp(-s))."""
    with np.errstate(over="ignore"):  # exp overflows to inf below -709, which is probability 0
        return 1 / (1 + np.exp(-np.asarray(log_odds, dtype=np.float64)))


def log_probability(log_odds: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """log p of log-odds, exact where p itself would round to 0 or 1."""
    return -np.logaddexp(0, -np.asarray(log_odds, dtype=np.float64))


def order_of(scores: Half) -> ScoreOrder:
    """Scores as unsigned integers in the same order; -0 and +0 are one value. NaN has no place: see `check_numbers`."""
    bits = scores.view(np.uint16)
    negative = (bits.view(np.int16) >> 15).view(np.uint16)  # all ones where the sign is set
    order = bits ^ (negative | np.uint16(0x8000))
    order += order == 0x7FFF  # the place of -0
    return order


def score_of(order: npt.ArrayLike) -> Half:
    """The inverse of `order_of`."""
    key = np.asarray(order, dtype=np.uint16)
    return np.where(key >= 0x8000, key ^ np.uint16(0x8000), ~key).astype(np.uint16).view(np.float16)


@cache
def _ladder() -> tuple[ScoreOrder, npt.NDArray[np.float64]]:
    """Every finite float16, ascending, as order and as probability."""
    finite = order_of(np.array([np.finfo(np.float16).min, np.finfo(np.float16).max], dtype=np.float16))
    order = np.arange(finite[0], int(finite[1]) + 1, dtype=np.uint16)
    return order, probability(score_of(order))


def cut_for(threshold: float) -> np.float16:
    """The score such that, for every stored score, probability > threshold exactly when score > cut.

    Threshold 0 passes every finite score, also those whose probability underflows.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold {threshold} is not a probability below 1")
    order, probabilities = _ladder()
    at_or_below = int(np.searchsorted(probabilities, threshold, side="right"))
    return LOWEST if threshold == 0 or at_or_below == 0 else score_of(order[at_or_below - 1 : at_or_below])[0]


def margin(scores: Half) -> npt.NDArray[np.float64]:
    """Probability of the best class minus that of the second: `scores` (N, P >= 2), best first."""
    if scores.shape[1] < 2:
        raise ValueError("the margin needs two stored classes an image; this table stores 1: predict with top_p >= 2")
    best = probability(scores[:, :2])
    return best[:, 0] - best[:, 1]


def margin_score(scores: Half) -> Half:
    """The margin m between the two best classes as a score: log m - log(1-m) in float16, (N, P >= 2) to (N,).

    1-m is the sum of two small probabilities, so margins next to 1 keep their order; a margin of 0 is the lowest finite score.
    """
    m = margin(scores)
    rest = probability(-scores[:, 0]) + probability(scores[:, 1])
    with np.errstate(divide="ignore"):
        score = np.log(np.maximum(m, 0)) - np.log(rest)
    widest = float(np.finfo(np.float16).max)
    return np.clip(score, -widest, widest).astype(np.float16)


def best_score(table: pa.Table | pa.RecordBatch, score: RankBy) -> Half:
    """What the images of a predictions table are ranked by for their best class, (N,). Raises ValueError for a score that was
    not stored, with the remedy."""
    if score == "max_probability":
        return np.ascontiguousarray(scores_of(table)[:, 0])
    if score == "margin":
        return margin_score(scores_of(table))
    return extra_score(table, score, f"predict.extra_scores=[{score}]")


def extra_score(table: pa.Table | pa.RecordBatch, name: str, remedy: str) -> Half:
    """An extra score of a predictions table (N,). Raises ValueError where it was not stored: predict again with `remedy`."""
    if name not in table.schema.names:
        raise ValueError(f"{name} was not stored with these predictions: predict again with {remedy}")
    column = table.column(name)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return np.asarray(column)


def further_names(table: pa.Table | pa.RecordBatch) -> list[str]:
    """The extra scores of a predictions table."""
    return table.schema.names[4:]


def tie_hash(shard: npt.NDArray[np.int32], row: npt.NDArray[np.int32]) -> npt.NDArray[np.uint64]:
    """What orders equal scores: splitmix64 of the address, shard in the upper half.

    A bijection of the address, so two images never tie, and independent of score, class and how the work was split.
    """
    z = (shard.astype(np.uint32).astype(np.uint64) << np.uint64(32)) | row.astype(np.uint32)
    z += np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def address_of(tie: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """(shard, row) behind tie hashes: `tie_hash` backwards, so that winners need not carry their address beside it."""
    z = tie ^ (tie >> np.uint64(31)) ^ (tie >> np.uint64(62))
    z = z * np.uint64(0x319642B2D24D8EC3)  # inverse of the multiplier modulo 2^64
    z = z ^ (z >> np.uint64(27)) ^ (z >> np.uint64(54))
    z = z * np.uint64(0x96DE1B173F119089)
    z = z ^ (z >> np.uint64(30)) ^ (z >> np.uint64(60))
    z = z - np.uint64(0x9E3779B97F4A7C15)
    return (z >> np.uint64(32)).astype(np.int32), z.astype(np.uint32).view(np.int32)


def classes_of(table: pa.Table | pa.RecordBatch) -> npt.NDArray[np.unsignedinteger]:
    """Class indices of a predictions table, (N, P) uint16 or uint32, best first; a view of the table's memory."""
    return matrix(table, "classes", schema.class_dtype(num_classes_of(table)))


def scores_of(table: pa.Table | pa.RecordBatch) -> Half:
    """Log-odds of a predictions table, (N, P) float16, best first; a view of the table's memory."""
    return matrix(table, "scores", np.dtype("<f2"))


def num_classes_of(table: pa.Table | pa.RecordBatch) -> int:
    """How many classes the teacher of a predictions table knew."""
    return int((table.schema.metadata or {})[schema.NUM_CLASSES])


def pack(
    shard: npt.NDArray[np.int32],
    row: npt.NDArray[np.int32],
    classes: npt.NDArray[np.integer],
    scores: Half,
    expected: pa.Schema,
    extra: Sequence[Half] = (),
) -> pa.Table:
    """A table of schema.predictions `expected`: `shard`, `row` and each of `extra_score` (N,), `classes` and `scores` (N, P), best first."""
    num_classes = int(expected.metadata[schema.NUM_CLASSES])
    columns = [
        pa.array(shard, pa.int32()),
        pa.array(row, pa.int32()),
        binary(np.ascontiguousarray(classes, dtype=schema.class_dtype(num_classes))),
        binary(np.ascontiguousarray(scores, dtype="<f2")),
        *(pa.array(np.ascontiguousarray(column)) for column in extra),
    ]
    return pa.Table.from_arrays(columns, schema=expected)


def check_numbers(scores: Half, shard: npt.NDArray[np.int32], row: npt.NDArray[np.int32]) -> None:
    """Raise ValueError naming the image unless every score is a number; `scores` (N, P)."""
    missing = (scores.view(np.uint16) & 0x7FFF) > 0x7C00
    if missing.any():
        first = int(np.argmax(missing.any(axis=1)))
        count = int(missing.any(axis=1).sum())
        raise ValueError(
            f"score is not a number for {count} images, first shard {shard[first]} row {row[first]}:"
            " the teacher diverged there"
        )


def matrix(table: pa.Table | pa.RecordBatch, name: str, dtype: np.dtype) -> npt.NDArray:
    """A fixed-size-binary column as (N, P) of `dtype`; zero-copy unless the column is in several chunks."""
    column = table.column(name)
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if column.null_count:
        raise ValueError(f"predictions column {name!r} has {column.null_count} nulls")
    width = column.type.byte_width // dtype.itemsize
    if not len(column):
        return np.empty((0, width), dtype)
    start = column.offset * width
    return np.frombuffer(column.buffers()[1], dtype, count=len(column) * width, offset=start * dtype.itemsize).reshape(
        -1, width
    )


def binary(values: npt.NDArray) -> pa.FixedSizeBinaryArray:
    """(N, P) as N fixed-size-binary values; the array keeps the memory of `values`."""
    kind = pa.binary(values.shape[1] * values.itemsize)
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(values), [None, pa.py_buffer(values)])
