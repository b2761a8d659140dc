"""Soft labels of other tools: every form gives the same targets, columns are matched by name, and tables that do not fit raise."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.labels import soft_tables
from engine.labels.classes import ClassList
from engine.labels.soft_tables import CLASS_NAMES, dense_rows, read_soft, slices
from engine.labels.targets import Targets, dense

CLASSES = ClassList(("ant", "bee", "cat", "dog"))
KEYS = pa.array(["a", "b", "c", "d", "e"])
ROWS = np.array([[0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25], [0, 0, 1, 0]])
NAMED = ["d", "a", "c"]
AT = [3, 0, 2]
SHUFFLED = [2, 0, 3, 1]
"""Columns in another order than the manifest's."""

Write = Callable[[Path, np.ndarray], str]


def npy(folder: Path, array: np.ndarray) -> str:
    np.save(folder / "x.npy", array[:, SHUFFLED].astype(np.float16))
    (folder / "x.classes.json").write_text(json.dumps([CLASSES.names[i] for i in SHUFFLED]))
    (folder / "x.keys.csv").write_text("key\n" + "\n".join(NAMED) + "\n")
    return str(folder / "x.npy")


def fixed_lists(folder: Path, array: np.ndarray) -> str:
    flat = pa.array(array[:, SHUFFLED].ravel().astype(np.float16))
    column = pa.FixedSizeListArray.from_arrays(flat, 4)
    table = pa.table({"key": NAMED, "values": column})
    names = json.dumps([CLASSES.names[i] for i in SHUFFLED])
    pq.write_table(table.replace_schema_metadata({CLASS_NAMES: names}), folder / "x.parquet")
    return str(folder / "x.parquet")


def arrow(folder: Path, array: np.ndarray) -> str:
    table = pq.read_table(fixed_lists(folder, array))
    with pa.OSFile(str(folder / "x.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return str(folder / "x.arrow")


def wide_csv(folder: Path, array: np.ndarray) -> str:
    lines = ["key," + ",".join(CLASSES.names[i] for i in SHUFFLED)]
    lines += [f"{key}," + ",".join(f"{row[i]:.6g}" for i in SHUFFLED) for key, row in zip(NAMED, array, strict=True)]
    (folder / "x.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "x.csv")


def wide_parquet(folder: Path, array: np.ndarray) -> str:
    columns = {CLASSES.names[i]: array[:, i] for i in SHUFFLED}
    pq.write_table(pa.table({"key": NAMED, **columns}), folder / "wide.parquet")
    return str(folder / "wide.parquet")


@pytest.mark.parametrize("write", [npy, fixed_lists, arrow, wide_csv, wide_parquet])
def test_every_form_gives_the_same_targets(write: Write, tmp_path: Path) -> None:
    labels = read_soft(write(tmp_path, ROWS), "distribution", CLASSES, KEYS)
    assert labels.position.tolist() == AT
    np.testing.assert_allclose(dense(labels.targets, 4), ROWS, atol=1e-3)
    np.testing.assert_allclose(dense(labels.targets, 4).sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("write", [npy, fixed_lists, wide_csv])
def test_logits_keep_every_class_and_their_sign(write: Write, tmp_path: Path) -> None:
    logits = np.array([[3, -1, 0.5, 0], [-2, -2, -3, 4], [0, 0, 0, 0]])
    labels = read_soft(write(tmp_path, logits), "logits", CLASSES, KEYS)
    assert np.asarray(labels.targets.weights.flatten()).reshape(3, 4).tolist() == logits.tolist()


def test_independent_labels(tmp_path: Path) -> None:
    several = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0.5, 0, 1, 1]])
    labels = read_soft(wide_csv(tmp_path, several), "labels", CLASSES, KEYS)
    assert labels.targets.classes.to_pylist() == [[0, 1], [], [0, 2, 3]]
    with pytest.raises(ValueError, match=r"row 0 has probabilities that do not sum to 1; set kind=labels"):
        read_soft(wide_csv(tmp_path, several), "distribution", CLASSES, KEYS)


def test_sparse_rows_leave_their_residual_mass(tmp_path: Path) -> None:
    table = pa.table(
        {"key": NAMED, "classes": [["bee"], ["dog", "ant"], ["cat"]], "weights": [[0.7], [0.5, 0.5], [1.0]]}
    )
    pq.write_table(table, tmp_path / "sparse.parquet")
    labels = read_soft(str(tmp_path / "sparse.parquet"), "distribution", CLASSES, KEYS)
    expected = np.array([[0.1, 0.7, 0.1, 0.1], [0.5, 0, 0, 0.5], [0, 0, 1, 0]])
    np.testing.assert_allclose(dense(labels.targets, 4), expected, atol=1e-6)


def kl(q: np.ndarray, p: np.ndarray) -> np.ndarray:
    return np.sum(np.where(q > 0, q * np.log(np.maximum(q, 1e-30) / np.maximum(p, 1e-30)), 0), axis=1)


def test_truncation_loses_at_most_the_information_of_the_residual_mass(tmp_path: Path) -> None:
    """KL(q || back) = sum over the unlisted of q log(q / mean): at most residual · log(number of unlisted)."""
    rng = np.random.default_rng(0)
    many = ClassList(tuple(f"c{i:02d}" for i in range(20)))
    rows = rng.dirichlet(np.full(20, 0.3), 50)
    pq.write_table(
        pa.table({"key": [f"{i}" for i in range(50)], **{n: rows[:, i] for i, n in enumerate(many.names)}}),
        tmp_path / "x.parquet",
    )
    for top in (1, 5, 19, 20):
        labels = read_soft(
            str(tmp_path / "x.parquet"), "distribution", many, pa.array([f"{i}" for i in range(50)]), top
        )
        residual = 1 - np.sort(rows, axis=1)[:, ::-1][:, :top].sum(1)
        lost = kl(rows, dense(labels.targets, 20).astype(np.float64))
        assert (lost <= residual * np.log(max(1, 20 - top)) + 1e-5).all()
    assert lost.max() < 1e-5


def test_blocks_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_soft(wide_csv(tmp_path, ROWS), "distribution", CLASSES, KEYS)
    monkeypatch.setattr(soft_tables, "DENSE_ROWS", 2)
    assert read_soft(wide_csv(tmp_path, ROWS), "distribution", CLASSES, KEYS).targets.weights.equals(
        whole.targets.weights
    )


def test_slices_are_in_the_order_of_the_images(tmp_path: Path) -> None:
    labels = read_soft(wide_csv(tmp_path, ROWS), "distribution", CLASSES, KEYS)
    pieces = list(slices(labels, 2))
    assert [piece.position.tolist() for piece in pieces] == [[0, 2], [3]]
    joined = Targets(*(pa.concat_arrays([getattr(p.targets, n) for p in pieces]) for n in Targets._fields))
    np.testing.assert_allclose(dense(joined, 4), ROWS[[1, 2, 0]], atol=1e-6)


def test_rows_of_float16_probabilities_sum_to_one_again() -> None:
    made = dense_rows(np.array([[0, 2], [1, 3]]), np.array([[0.7, 0.2], [0.9, 0.101]], np.float16), 4)
    np.testing.assert_allclose(made.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(made[0], [0.7, 0.05, 0.2, 0.05], atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("distribution", "key,ant,bee,cat\na,1,0,0\n", "its 3 classes differ"),
        ("distribution", "key,ant,bee,cat,cow\na,1,0,0,0\n", r"it lacks 'dog'|lacks"),
        ("distribution", "ant,bee,cat,dog\n1,0,0,0\n", "`key` .* is required"),
        ("distribution", "key,ant,bee,cat,dog\nz,1,0,0,0\n", "match no image"),
        ("distribution", "key,ant,bee,cat,dog\na,1,0,0,0\nb,-1,2,0,0\n", "row 1 has a probability outside"),
        ("distribution", "key,ant,bee,cat,dog\na,1,0,,0\n", "row 0 has a probability outside"),
        ("distribution", "key,ant,bee,cat,dog\na,1,0,x,0\n", "not a number"),
        ("logits", "key,ant,bee,cat,dog\na,1,0,0,0\n", "values are probabilities, not logits"),
    ],
)
def test_a_table_that_does_not_fit_raises(
    tmp_path: Path, kind: soft_tables.TargetKind, text: str, message: str
) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_soft(str(tmp_path / "x.csv"), kind, CLASSES, KEYS)


def test_an_array_without_names_or_keys_raises(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", ROWS)
    with pytest.raises(ValueError, match=r"x\.classes\.json, a JSON list"):
        read_soft(str(tmp_path / "x.npy"), "distribution", CLASSES, KEYS)
    (tmp_path / "x.classes.json").write_text(json.dumps(CLASSES.names))
    with pytest.raises(ValueError, match=r"3 rows for 5 images\..*keys\.csv"):
        read_soft(str(tmp_path / "x.npy"), "distribution", CLASSES, KEYS)
    labels = read_soft(str(tmp_path / "x.npy"), "distribution", CLASSES, pa.array(["k0", "k1", "k2"]))
    assert labels.position.tolist() == [0, 1, 2]
