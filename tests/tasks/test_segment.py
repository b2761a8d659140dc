"""Masks from end to end: what is known of the measure, and a run that learns, predicts, selects, gathers and scores them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from sklearn.metrics import jaccard_score

from engine.fit.segmentation import pixel_agreement, pixel_loss
from engine.ground.steps import Store, read_output, read_tables
from engine.images.collection import Collection
from engine.images.decode import decode_mask_full_size
from engine.labels.classes import ClassList
from engine.metrics.mean_iou import class_iou, mean_iou, pixel_confusion
from engine.select.scores import probability
from engine.settings.block import SettingsError
from engine.settings.predict import PredictSettings
from engine.tables.schema import IGNORE
from engine.tasks.mask_answers import MaskAnswers, png
from engine.tasks.segment import MeanIoUMeasure, Segment, confident
from engine.tasks.task import Truth
from tests.small_run import small_settings

CLASSES = ["ground", "roof"]
SIDE = 32


def test_iou_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = (rng.integers(0, 4, (50, 60)).astype(np.uint8) for _ in range(2))
    truth[:5] = IGNORE
    found = class_iou(pixel_confusion(truth, predicted, 4, IGNORE))
    known = truth != IGNORE
    expected = jaccard_score(truth[known], predicted[known], average=None)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_class_in_neither_has_no_iou_and_is_left_out_of_the_mean() -> None:
    confusion = np.diag([3, 0, 1])
    assert np.isnan(class_iou(confusion)[1])
    assert mean_iou(confusion, np.array([True, False, True])) == 1
    assert mean_iou(np.array([[2, 2], [0, 4]]), np.array([True, True])) == pytest.approx((2 / 4 + 4 / 6) / 2)


def confusions(counts: np.ndarray) -> pa.Table:
    number = len(counts)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(counts.astype(np.int32).ravel()), 4)
    columns = [np.zeros(number, np.int32), np.arange(number, dtype=np.int32), flat]
    return pa.table(columns, names=["shard", "row", "confusion"])


def test_the_score_is_of_all_pixels_together_and_paired_over_images() -> None:
    rng = np.random.default_rng(1)
    good = np.stack([np.array([[90 + k, 10], [5, 95]]) for k in rng.integers(0, 9, 40)])
    bad = np.stack([np.array([[70 + k, 30], [25, 75]]) for k in rng.integers(0, 9, 40)])
    measure = MeanIoUMeasure(CLASSES)
    score = measure.score(confusions(good), unreadable=2)
    assert score.value == pytest.approx(class_iou(good.sum(0)).mean())
    assert score.low < score.value < score.high
    assert (score.name, score.images, score.unreadable) == ("mean_iou", 40, 2)
    test = measure.paired(confusions(bad), confusions(good))
    assert test.difference.value == pytest.approx(class_iou(good.sum(0)).mean() - class_iou(bad.sum(0)).mean())
    assert test.difference.low > 0.1
    assert test.p_value < 0.01
    same = measure.paired(confusions(good), confusions(good))
    assert (same.difference.value, same.p_value) == (0, 1)


def test_ignored_pixels_have_no_gradient_and_no_part_in_the_loss() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    mask = torch.randint(0, 3, (2, 4, 4), dtype=torch.uint8)
    mask[0, :2] = IGNORE
    loss = pixel_loss(logits, mask)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0, :, :2].abs().max() == 0
    assert logits.grad[0, :, 2:].abs().min() > 0
    known = mask != IGNORE
    picked = logits.detach().permute(0, 2, 3, 1)[known]
    expected = torch.nn.functional.cross_entropy(picked, mask[known].long())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert pixel_loss(logits, torch.full_like(mask, IGNORE)).item() == 0
    perfect = torch.nn.functional.one_hot(mask.clamp(max=2).long(), 3).permute(0, 3, 1, 2).float()
    assert pixel_agreement(perfect, mask) == 1


def test_confidence_is_the_share_of_confident_pixels() -> None:
    settings = PredictSettings(views="flip")
    even = torch.zeros(1, 2, 8, 8)
    found = MaskAnswers().of([even], settings, 1)
    assert probability(found.odds.numpy().astype(np.float16))[0, 0] < 0.01, "p = 0.5 everywhere"
    half = even.clone()
    half[:, 1, :, :3] = 9.0  # three of eight columns are sure
    one = MaskAnswers().of([half], settings, 1)
    assert probability(one.odds.numpy().astype(np.float16))[0, 0] == pytest.approx(3 / 8, abs=1e-3)
    both = MaskAnswers().of([half, half.flip(3)], settings, 1)  # the mirrored view sees the mirrored image
    assert torch.equal(both.more[0], one.more[0])
    torch.testing.assert_close(both.odds, one.odds)
    assert one.more[0][0].tolist() == [[1] * 3 + [0] * 5] * 8


def test_pixels_that_are_not_confident_enough_are_ignored() -> None:
    mask = np.arange(64, dtype=np.uint8).reshape(8, 8) % 2
    confidence = np.array([[255, 100], [204, 203]], np.uint8)
    found = confident(png(mask), png(confidence), 0.8)
    assert (found[:4, 4:] == IGNORE).all()
    assert (found[4:, 4:] == IGNORE).all()
    np.testing.assert_array_equal(found[:, :4], mask[:, :4])


def scene(seed: int) -> tuple[Image.Image, Image.Image]:
    """A red roof on noisy green ground, and its mask."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    top, left = rng.integers(2, 14, 2)
    mask[top : top + rng.integers(8, 16), left : left + rng.integers(8, 16)] = 1
    colours = np.array([[60, 140, 60], [180, 60, 60]])
    pixels = colours[mask] + rng.integers(-30, 30, (SIDE, SIDE, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), Image.fromarray(mask)


def write_scenes(folder: Path) -> None:
    for name, seeds in (("labelled", range(12)), ("pool", range(100, 140)), ("validation", range(200, 216))):
        for part in ("", "_masks"):
            (folder / f"{name}{part}").mkdir()
        for seed in seeds:
            image, mask = scene(seed)
            image.save(folder / name / f"{seed}.jpg", quality=95)
            mask.save(folder / f"{name}_masks" / f"{seed}.png")


def changes(folder: Path) -> dict[str, Any]:
    fit = {
        "objective": "segmentation",
        "steps": 30,
        "batch": {"labelled": 8},
        "lr": 0.05,
        "amp": False,
        "model_ema_decay": 0.9,
        "checkpoint_every": 10,
        "log_every": 10,
    }
    names = ("labelled", "validation")
    return {
        "task": "segment",
        "data": {
            **{name: str(folder / name) for name in (*names, "pool")},
            "masks": {name: str(folder / f"{name}_masks") for name in names},
            "classes": CLASSES,
            "rows_per_shard": 7,
        },
        "teacher_model": {
            "model": "resnet8_cifar",
            "img_size": SIDE,
            "model_args": {"width": 8},
            "decoder": "unet",
            "decoder_width": 8,
        },
        "teacher": fit,
        "student": {**fit, "batch": {"labelled": 4, "pseudo": 8}, "noise": {"pseudo": {"aa_num_ops": 1}}},
        "predict": {"batch_size": 16, "backend": "eager", "views": "flip"},
        "select": {"threshold": 0.3, "targets": "hard", "pixel_threshold": 0.6},
    }


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_masks_are_learned_predicted_selected_gathered_and_scored(tmp_path: Path) -> None:
    from jobs.self_train import self_train

    write_scenes(tmp_path)
    store = str(tmp_path / "store")
    report: Any = self_train(small_settings(tmp_path, store, **changes(tmp_path)))
    first, second = report["generations"]
    assert first["validation"]["name"] == "mean_iou"
    assert second["validation"]["value"] > 0.7
    assert second["pseudo_labels"] > 10
    steps = {one.partition("-")[0]: one for one in second["steps"]}
    opened = Store(store)
    gathered = read_output(opened, steps["gather"])
    assert gathered is not None
    table = pa.concat_tables(table for _, table in read_tables(gathered, opened.fs))
    values = [decode_mask_full_size(mask) for mask in table["mask"].to_pylist()]
    assert {value.shape for value in values} == {(SIDE, SIDE)}
    right, known = 0, 0
    for key, value in zip(table["key"].to_pylist(), values, strict=True):
        truth = np.asarray(scene(int(Path(key).stem))[1])
        right += int((value == truth)[value != IGNORE].sum())
        known += int((value != IGNORE).sum())
    assert right / known > 0.9
    assert known < table.num_rows * SIDE**2, "pixels below select.pixel_threshold are ignored"


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_a_mask_that_does_not_belong_to_its_image_is_quarantined(tmp_path: Path) -> None:
    from jobs.self_train import self_train

    write_scenes(tmp_path)
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "labelled_masks" / "3.png")
    Image.fromarray(np.full((SIDE, SIDE), 7, np.uint8)).save(tmp_path / "labelled_masks" / "4.png")
    changed = changes(tmp_path)
    with pytest.raises(ValueError, match=r"2 of 12 images rejected.*1 mask of (other classes|another size), 1 mask of"):
        self_train(small_settings(tmp_path, str(tmp_path / "store"), **changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"teacher_model": {"model": "resnet18"}}, "set models.teacher.decoder=unet"),
        ({"teacher": {"steps": 1, "batch": {"labelled": 1}}}, "set fits.teacher.objective=segmentation"),
        ({"select": {"threshold": 0.3}}, "set select.targets=hard"),
        ({"predict": {"calibrate": True}}, "leave it out for task=segment"),
    ],
)
def test_settings_that_mean_nothing_for_masks_are_refused(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    settings = small_settings(tmp_path, "store", **{**changes(tmp_path), **changed})
    with pytest.raises(SettingsError, match=message):
        Segment.check(settings)


def test_an_image_without_a_mask_is_named(tmp_path: Path) -> None:
    from engine.ground.run import Run
    from engine.recipes.context import open_set
    from engine.settings.cluster import ClusterSettings

    write_scenes(tmp_path)
    (tmp_path / "labelled_masks" / "5.png").unlink()
    settings = small_settings(tmp_path, str(tmp_path / "store"), **changes(tmp_path))
    run = Run(Store(settings.store), "run", ClusterSettings())
    collection = open_set(run, "labelled", settings.data.labelled, settings.data)
    task = Segment(ClassList(tuple(CLASSES)))
    assert len(task.known_truth(Collection("pool", collection.manifest))) == 0
    with pytest.raises(ValueError, match=r"1 images have no mask in .*labelled_masks: 5\.jpg"):
        task.truth(collection)


def test_counts_of_images_and_majority_classes() -> None:
    masks = [np.zeros((4, 4), np.uint8), np.eye(4, dtype=np.uint8), np.full((4, 4), IGNORE, np.uint8)]
    images = pa.table({"shard": pa.array([0, 0, 0], pa.int32()), "row": pa.array([0, 1, 2], pa.int32())})
    truth = Truth(images, np.array([png(mask) for mask in masks], object))
    task = Segment(ClassList(tuple(CLASSES)))
    assert task.class_counts(truth.values).tolist() == [2, 1]
    picked = images.slice(0, 2).append_column("class", pa.array([0, 1], pa.uint16()))
    assert task.correct(picked, truth).tolist() == [True, False]
