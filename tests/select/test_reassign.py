"""Later teachers relabel the filtered images only: the images and their counts stay, labels and ranks are new."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from engine.select.reassign import reassign
from engine.tables import schema


def table(rows: list[tuple[int, int, float, int]]) -> pa.Table:
    """(row, class, score, count)."""
    form = schema.pseudo_labels(3, "0" * 16)
    row, classes, score, count = (list(column) for column in zip(*rows, strict=True))
    columns: list[Any] = [[0] * len(rows), row, classes, np.array(score, np.float16), [0] * len(rows), count]
    columns += [[[c] for c in classes], [[s / 10] for s in score]]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, form, strict=True)], schema=form)


def test_images_and_counts_stay_labels_and_ranks_are_new() -> None:
    filtered = table([(4, 0, 5, 2), (1, 0, 4, 1), (7, 2, 3, 3), (9, 1, 1, 1)])
    fresh = table([(1, 2, 1, 1), (2, 0, 9, 1), (4, 2, 6, 1), (7, 0, 2, 1)])  # 9 could not be read this time
    made = reassign(filtered, fresh)
    schema.check(made, filtered.schema, "made")
    told = {r["row"]: (r["class"], r["rank"], r["count"], r["score"]) for r in made.to_pylist()}
    assert told == {7: (0, 0, 3, 2.0), 4: (2, 0, 2, 6.0), 1: (2, 1, 1, 1.0)}
    assert made["classes"].to_pylist() == [[0], [2], [2]]


def test_the_same_teacher_changes_nothing() -> None:
    filtered = table([(4, 0, 5, 2), (1, 0, 4, 1)])
    assert reassign(filtered, filtered)["count"].to_pylist() == [2, 1]


def test_an_image_of_two_classes_is_refused() -> None:
    twice = table([(4, 0, 5, 1), (4, 1, 4, 1)])
    with pytest.raises(ValueError, match="classes_per_image=1"):
        reassign(twice, twice)
