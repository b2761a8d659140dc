"""A whole self-training with several labels per image, on images of up to three coloured shapes."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from engine.ground.run import pointers
from engine.ground.steps import Store, read_output, read_tables
from engine.metrics.score import Score
from engine.recipes.registry import SelfTrainSettings
from engine.settings.block import SettingsError, parse
from engine.tasks.multilabel import Multilabel
from jobs.self_train import self_train
from tests.small_run import small_tree

SHAPES = {"red circle": "red", "green square": "lime", "blue bar": "blue"}


def shapes(path: Path, number: int, seed: int) -> str:
    """A Parquet file of images with each shape or without, and the names between semicolons; some images show none."""
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for present in rng.random((number, 3)) < 0.5:
        picture = Image.fromarray(rng.integers(90, 130, (24, 24, 3), dtype=np.uint8))
        draw = ImageDraw.Draw(picture)
        x, y = (int(one) for one in rng.integers(1, 6, 2))
        for name, here, drawing, box in zip(
            SHAPES,
            present,
            (draw.ellipse, draw.rectangle, draw.rectangle),
            ((x, y, x + 8, y + 8), (x + 9, y, x + 16, y + 8), (x, y + 10, x + 16, y + 14)),
            strict=True,
        ):
            if here:
                drawing(box, fill=SHAPES[name])
        buffer = BytesIO()
        picture.save(buffer, "PNG")
        images.append(buffer.getvalue())
        labels.append("; ".join(name for name, here in zip(SHAPES, present, strict=True) if here))
    pq.write_table(pa.table({"image": images, "label": labels}), path)
    return str(path)


def tree(folder: Path, **changed: Any) -> dict[str, Any]:
    sizes = {"labelled": 60, "pool": 120, "validation": 60}
    data = {name: shapes(folder / f"{name}.parquet", size, size + len(name)) for name, size in sizes.items()}
    made = small_tree(folder, str(folder / "store"))
    for fit in ("teacher", "student"):
        made["fits"][fit] |= {"loss": "bce", "lr": 0.02}
    return {
        **made,
        "task": "multilabel",
        "data": {**data, "rows_per_shard": 32},
        "predict": {**made["predict"], "top_p": 3},
        "select": {"targets": "hard", "threshold": 0.5, "thresholds": {"blue bar": 0.6}, "classes_per_image": 3},
        "guard": {"enabled": True},
        **changed,
    }


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_a_run_with_several_labels_per_image(tmp_path: Path) -> None:
    settings = parse(SelfTrainSettings, tree(tmp_path), "test")
    report: Any = self_train(settings)
    teacher, student = report["generations"]
    for row in (teacher, student):
        score = Score.from_json(row["validation"])
        assert (score.name, score.images) == ("mean_average_precision", 60)
        assert score.low <= score.value <= score.high
        assert set(score.per_class) == set(SHAPES)
        assert len(score.details["macro_f1"]) == 3
    assert teacher["validation"]["value"] > 0.7, "coloured shapes are learned in forty steps"
    gain = student["validation"]["value"] - teacher["validation"]["value"]
    assert student["guard"]["difference"]["value"] == pytest.approx(gain)
    assert student["guard"]["obeyed"]
    assert student["pseudo_correct"] > 0.6
    store = Store(settings.store)
    steps = {pointer.title: pointer.step for pointer in pointers(store, settings.run)}
    pseudo, targets, gathered = (
        read_output(store, steps[f"generation 1 {name}"]) for name in ("select", "gather targets", "gather")
    )
    assert pseudo is not None
    assert targets is not None
    assert gathered is not None
    learned = pa.concat_tables(table for _, table in read_tables(targets, store.fs))
    assert learned.num_rows < pseudo.summary["selected"], "an image with two classes is one target"
    assert gathered.summary["kind"] == "labels"
    picked = pa.concat_tables(table for _, table in read_tables(pseudo, store.fs))
    chosen = set(zip(*(picked[name].to_pylist() for name in ("shard", "row", "class")), strict=True))
    assert chosen == {
        (shard, row, c)
        for shard, row, classes in zip(
            *(learned[name].to_pylist() for name in ("shard", "row", "classes")), strict=True
        )
        for c in classes
    }
    assert all(set(weights) == {1.0} for weights in learned["weights"].to_pylist())


def test_settings_that_mean_nothing_for_several_labels_are_refused(tmp_path: Path) -> None:
    for changed, said in (
        ({"select": {"targets": "soft"}}, "select.targets=hard"),
        ({"select": {"targets": "hard", "cut": "adamatch"}}, "another cut"),
        ({"select": {"targets": "hard"}, "predict": {"calibrate": True}}, "leave it out"),
    ):
        with pytest.raises(SettingsError, match=said):
            Multilabel.check(parse(SelfTrainSettings, tree(tmp_path, **changed), "test"))
