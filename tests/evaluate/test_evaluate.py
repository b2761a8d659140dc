"""Evaluation is prediction over a labelled scope and a measure of it: resumed, within a reject limit, by tasks or actors alike."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.evaluate.calibrate import calibrate
from engine.evaluate.evaluate import evaluate
from engine.evaluate.robustness import chosen_corruptions, robustness
from engine.evaluate.soft import evaluate_soft
from engine.ground.run import Run, pointers
from engine.ground.steps import Output, Store, read_output, read_tables
from engine.images.collection import open_collection
from engine.images.scope import Scope
from engine.images.subset import Subset
from engine.labels.classes import ClassList
from engine.models.imported import find_model
from engine.predict import pipeline
from engine.predict.pipeline import TooManyRejectsError
from engine.predict.predictor import Predictor
from engine.predict.shard_predictor import ShardPredictor
from engine.select.scores import classes_of, probability, scores_of
from engine.settings.cluster import ClusterSettings
from engine.settings.data import SourceSettings
from engine.settings.jobs import SoftSettings
from engine.settings.predict import PredictSettings
from engine.tasks.classify import Classify
from tests.predict.test_shard_predictor import teacher as teacher  # the fixture

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

CLASSES = ClassList(tuple(str(digit) for digit in range(10)))
TASK = Classify(CLASSES)
SETTINGS = PredictSettings(top_p=3, batch_size=16, backend="eager")
ROWS, SHARD = 60, 16


class Evaluated:
    """A store of its own, a model, and a labelled set of 60 digits in shards of 16."""

    def __init__(self, folder: Path, teacher: Path, digits: Path, broken: tuple[int, ...] = ()) -> None:
        files = sorted((digits / "test").rglob("*.png"))[:: 400 // ROWS][:ROWS]
        images = [b"torn" if number in broken else path.read_bytes() for number, path in enumerate(files)]
        labels = [path.parent.name for path in files]
        folder.mkdir(exist_ok=True)
        pq.write_table(pa.table({"image": images, "label": labels}), folder / "test.parquet")
        self.labels, self.teacher = np.array([int(label) for label in labels]), teacher
        self.run = Run(Store(str(folder / "store")), "run", ClusterSettings(label={"workers": 2}))
        self.model: Output = find_model(self.run, str(teacher))
        source = SourceSettings(rows_per_shard=SHARD)
        self.scope = Scope(open_collection(self.run, "test", str(folder / "test.parquet"), source, labelled=True))

    def __call__(self, **scope: Any) -> Output:
        chosen = replace(self.scope, **scope)
        return evaluate(self.run, "test", self.model, chosen, TASK, SETTINGS)

    def rows(self, output: Output) -> pa.Table:
        return pa.concat_tables(table for _, table in read_tables(output, self.run.store.fs))

    def predictions(self, name: str = "test predict") -> Output:
        step = next(pointer.step for pointer in pointers(self.run.store, "run") if pointer.title == name)
        found = read_output(self.run.store, step)
        assert found is not None
        return found

    def alone(self, top_p: int = 1) -> pa.Table:
        """What the model predicts, without Ray and without steps."""
        predictor = Predictor(self.teacher, SETTINGS.model_copy(update={"top_p": top_p}))
        labeller = ShardPredictor(self.scope, predictor)
        return pa.concat_tables(labeller(int(shard)).predictions for shard in self.scope.shards)


def test_the_score_is_of_what_the_model_predicts(digits: Path, teacher: Path, tmp_path: Path) -> None:
    evaluated = Evaluated(tmp_path, teacher, digits)
    output = evaluated()
    predicted = classes_of(evaluated.alone())[:, 0]
    rows = evaluated.rows(output)
    assert rows["predicted"].to_numpy().tolist() == predicted.tolist()
    assert rows["truth"].to_numpy().tolist() == evaluated.labels.tolist()
    assert output.summary["images"] == ROWS
    assert output.summary["value"] == pytest.approx(np.mean(predicted == evaluated.labels))
    assert output.summary["low"] < output.summary["value"] < output.summary["high"]


def test_images_that_cannot_be_read_are_reported_and_are_not_wrong(
    digits: Path, teacher: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole, broken = (
        Evaluated(tmp_path / name, teacher, digits, torn) for name, torn in (("whole", ()), ("broken", (3, 40)))
    )
    output = broken(max_rejected_percent=5)
    assert "58 images, 2 unreadable" in capfd.readouterr().out
    assert (output.summary["images"], output.summary["rejected"]) == (58, 2)
    assert sum(output.summary["reasons"].values()) == 2
    complete = whole.rows(whole())
    left = np.setdiff1d(np.arange(ROWS), [3, 40])
    assert broken.rows(output).equals(complete.take(pa.array(left)))
    same = TASK.measure.paired(complete, broken.rows(output))
    assert (same.images, same.difference.value, same.p_value) == (58, 0, 1)
    right = (complete["truth"].to_numpy() == complete["predicted"].to_numpy())[left]
    assert output.summary["value"] == pytest.approx(right.mean())
    message = r"test predict: 2 of 60 images rejected \(3\.3 %, limit data\.max_rejected_percent=1\): 2 .*predict-.*/quarantine/"
    with pytest.raises(TooManyRejectsError, match=message):
        broken(max_rejected_percent=1)


def test_a_class_that_lost_all_its_images_is_named(digits: Path, teacher: Path, tmp_path: Path) -> None:
    labels = Evaluated(tmp_path / "whole", teacher, digits).labels
    fours = tuple(np.flatnonzero(labels == 4).tolist())
    broken = Evaluated(tmp_path / "broken", teacher, digits, fours)
    expected = rf"1 of 10 classes lost all their images: 4 \({len(fours)} images\).*/quarantine/"
    with pytest.raises(ValueError, match=expected):
        broken(max_rejected_percent=100)
    others = np.flatnonzero(labels != 4)
    chosen = Subset.of(others // SHARD, others % SHARD)
    assert broken(max_rejected_percent=100, chosen=chosen).summary["images"] == len(others)


def test_an_evaluation_that_was_killed_goes_on(digits: Path, teacher: Path, tmp_path: Path) -> None:
    evaluated = Evaluated(tmp_path, teacher, digits)
    first = evaluated()
    predictions = evaluated.predictions()
    parts = sorted((Path(predictions.folder) / "parts").iterdir())
    assert len(parts) == len(evaluated.scope.shards)
    for step in (first, predictions):
        (Path(step.folder) / "step.json").unlink()
    parts[1].unlink()
    again = evaluated()
    assert again.digest == first.digest
    assert set(parts) - set((Path(predictions.folder) / "parts").iterdir()) == {parts[1]}


def test_tasks_and_actors_write_the_same_parts(
    digits: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = (5, 33)
    by_tasks = Evaluated(tmp_path / "tasks", teacher, digits, broken)
    by_tasks(max_rejected_percent=5)
    monkeypatch.setattr(pipeline, "TASK_IMAGES", 0)
    by_actors = Evaluated(tmp_path / "actors", teacher, digits, broken)
    by_actors(max_rejected_percent=5)
    first, second = by_tasks.predictions(), by_actors.predictions()
    assert (first.step, first.digest) == (second.step, second.digest)
    assert first.summary == second.summary


def test_corrupted_images_are_scored_worse_or_differently_each_as_a_step(
    digits: Path, teacher: Path, tmp_path: Path
) -> None:
    evaluated = Evaluated(tmp_path, teacher, digits)
    wanted = chosen_corruptions(["contrast", "gaussian_noise"], [1, 5])
    errors = robustness(evaluated.run, evaluated.model, evaluated.scope, TASK, SETTINGS, wanted)
    assert list(errors) == ["contrast", "gaussian_noise"]
    clean = evaluated.rows(evaluated())
    steps = {pointer.title: pointer.step for pointer in pointers(evaluated.run.store, "run")}
    for family, error in errors.items():
        outputs = [read_output(evaluated.run.store, steps[f"{family} {severity}"]) for severity in (1, 5)]
        assert error == pytest.approx(np.mean([1 - one.summary["value"] for one in outputs if one is not None]))
        assert outputs[1] is not None
        assert evaluated.rows(outputs[1])["confidence"] != clean["confidence"]
    record = json.loads((Path(evaluated.predictions("contrast 5 predict").folder) / "record.json").read_text())
    assert record["settings"]["corruption"] == ["contrast", 5]


def test_unknown_corruptions_are_refused_with_what_is_meant() -> None:
    with pytest.raises(ValueError, match="Did you mean gaussian_noise"):
        chosen_corruptions(["gausian_noise"])
    with pytest.raises(ValueError, match="severities: 6 is unknown"):
        chosen_corruptions(["fog"], [1, 6])
    assert len(chosen_corruptions(["all"])) == 75


def soft_table(evaluated: Evaluated, path: Path, values: np.ndarray) -> SoftSettings:
    """The probabilities `values` (n, C) of the first n images as a table."""
    keys = evaluated.scope.manifest.keys()["key"].to_pylist()[: len(values)]
    columns = {"key": keys, **{name: values[:, index] for index, name in enumerate(CLASSES.names)}}
    pq.write_table(pa.table(columns), path)
    return SoftSettings(table=str(path))


def test_a_model_agrees_with_its_own_distribution_and_not_with_another(
    digits: Path, teacher: Path, tmp_path: Path
) -> None:
    evaluated = Evaluated(tmp_path, teacher, digits, broken=(2,))
    everything = evaluated.alone(top_p=10)
    own = np.full((ROWS, 10), 0.1)
    rows = evaluated.scope.collection.at(everything)
    own[rows[:, None], classes_of(everything)] = probability(scores_of(everything))
    own /= own.sum(axis=1, keepdims=True)
    scope = replace(evaluated.scope, max_rejected_percent=5)
    same = evaluate_soft(
        evaluated.run,
        "own",
        evaluated.model,
        scope,
        SETTINGS,
        soft_table(evaluated, tmp_path / "own.parquet", own[:40]),
    ).summary
    assert (same["images"], same["rejected"]) == (39, 1)
    assert same["kl"] == pytest.approx(0, abs=1e-3)
    assert same["agreement"] == 1
    other = np.roll(own, 1, axis=1)
    shifted = evaluate_soft(
        evaluated.run,
        "other",
        evaluated.model,
        scope,
        SETTINGS,
        soft_table(evaluated, tmp_path / "other.parquet", other),
    ).summary
    expected = np.sum(other * np.log(other / own), axis=1)[rows].mean()
    assert shifted["kl"] == pytest.approx(expected, rel=0.02)
    assert shifted["agreement"] < 0.05  # rounded scores may tie
    assert {p.step.partition("-")[0] for p in pointers(evaluated.run.store, "run") if p.title == "own"} == {
        "evaluate_soft"
    }


def test_several_labels_per_image_have_an_average_precision_per_class(
    digits: Path, teacher: Path, tmp_path: Path
) -> None:
    evaluated = Evaluated(tmp_path, teacher, digits)
    logits = Predictor(teacher, SETTINGS.model_copy(update={"top_p": 10, "activation": "sigmoid"}))
    everything = pa.concat_tables(
        ShardPredictor(evaluated.scope, logits)(int(shard)).predictions for shard in evaluated.scope.shards
    )
    scores = np.empty((ROWS, 10))
    np.put_along_axis(scores, classes_of(everything).astype(int), scores_of(everything).astype(float), axis=1)
    truth = (scores > np.median(scores, axis=0)).astype(float)  # what the model ranks highest: a perfect order
    truth[:, 9] = 0
    soft = soft_table(evaluated, tmp_path / "labels.parquet", truth).model_copy(update={"kind": "labels"})
    summary = evaluate_soft(evaluated.run, "labels", evaluated.model, evaluated.scope, SETTINGS, soft).summary
    assert summary["mean_average_precision"] == pytest.approx(1)
    assert set(summary["average_precision"]) == set(CLASSES.names) - {"9"}
    with pytest.raises(ValueError, match="Write them as probabilities"):
        evaluate_soft(
            evaluated.run,
            "logits",
            evaluated.model,
            evaluated.scope,
            SETTINGS,
            soft.model_copy(update={"kind": "logits"}),
        )


def test_a_temperature_is_fitted_on_what_can_be_read_and_within_the_limit(
    digits: Path, teacher: Path, tmp_path: Path
) -> None:
    evaluated = Evaluated(tmp_path, teacher, digits, broken=(7, 8))
    fitted = calibrate(
        evaluated.run, "c", evaluated.model, replace(evaluated.scope, max_rejected_percent=5), CLASSES, SETTINGS
    )
    assert fitted.summary["images"] == 58
    assert 0 < fitted.summary["temperature"] < float("inf")
    with pytest.raises(TooManyRejectsError):
        calibrate(evaluated.run, "c", evaluated.model, evaluated.scope, CLASSES, SETTINGS)


def test_labels_of_other_classes_than_the_models_are_refused(digits: Path, teacher: Path, tmp_path: Path) -> None:
    evaluated = Evaluated(tmp_path, teacher, digits)
    others = ClassList(tuple(reversed(CLASSES.names)))
    with pytest.raises(ValueError, match="the model's classes are not those of the labels"):
        evaluate(evaluated.run, "test", evaluated.model, evaluated.scope, Classify(others), SETTINGS)
