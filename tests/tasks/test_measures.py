"""Scores and paired tests of tasks against scikit-learn and against what is known of simulated models."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics
from sklearn.metrics import average_precision_score, f1_score

from engine.labels.classes import ClassList
from engine.metrics.ranking import AveragePrecision
from engine.metrics.resampling import bootstrap_weights
from engine.select.scores import pack
from engine.tables import schema
from engine.tasks.classify import ROWS, AccuracyMeasure, Classify
from engine.tasks.multilabel import Multilabel, split
from engine.tasks.task import Truth

NAMES = ClassList(("cat", "dog", "owl"))


def addressed(number: int) -> pa.Table:
    """Images of two shards."""
    shard = np.arange(number, dtype=np.int32) // 40
    return pa.table({"shard": shard, "row": np.arange(number, dtype=np.int32) % 40})


def predictions(images: pa.Table, log_odds: np.ndarray) -> pa.Table:
    """Predictions that hold all classes, best first, in an order of images that is not that of the addresses."""
    order = np.argsort(-log_odds, axis=1)
    shard, row = images["shard"].to_numpy(), images["row"].to_numpy()
    expected = schema.predictions(len(NAMES), NAMES.hash, len(NAMES))
    table = pack(shard, row, order, np.take_along_axis(log_odds, order, axis=1).astype(np.float16), expected)
    return table.take(pa.array(np.random.default_rng(0).permutation(images.num_rows)))


def several(number: int = 300, skill: float = 1.5, seed: int = 0, ties: bool = False) -> tuple[Truth, np.ndarray]:
    """Sets of true classes, and log-odds (N, C) float16 of a model of this skill."""
    truth = np.random.default_rng(7).random((number, 3)) < [0.1, 0.3, 0.5]
    log_odds = np.random.default_rng(seed).normal(0, 1, truth.shape) + skill * (truth - 0.5)
    return Truth(addressed(number), truth), (np.round(log_odds) if ties else log_odds).astype(np.float16)


@pytest.mark.parametrize("ties", [False, True])
def test_mean_average_precision_and_macro_f1_are_those_of_scikit_learn(ties: bool) -> None:
    truth, log_odds = several(ties=ties)
    measure = Multilabel(NAMES).measure
    score = measure.score(measure.rows(predictions(truth.images, log_odds), truth), unreadable=2)
    assert score.value == pytest.approx(average_precision_score(truth.values, log_odds, average="macro"))
    assert score.per_class["owl"] == pytest.approx(average_precision_score(truth.values[:, 2], log_odds[:, 2]))
    f1 = f1_score(truth.values, log_odds > 0, average="macro")
    assert score.details["macro_f1"][0] == pytest.approx(f1)
    assert score.low < score.value < score.high
    assert (score.name, score.images, score.unreadable) == ("mean_average_precision", 300, 2)


@pytest.mark.parametrize("ties", [False, True])
def test_a_weighted_average_precision_is_that_of_repeated_images(ties: bool) -> None:
    truth, log_odds = several(60, ties=ties)
    one = AveragePrecision(truth.values[:, 1], log_odds[:, 1])
    weights = np.concatenate(list(bootstrap_weights(60, 20, seed=3)), axis=1)
    for column, value in zip(weights.T, one(weights), strict=True):
        again = np.repeat(np.arange(60), column)
        assert value == pytest.approx(average_precision_score(truth.values[again, 1], log_odds[again, 1]))
    assert np.isnan(AveragePrecision(np.zeros(4, bool), np.arange(4.0))(np.ones((4, 1), np.int32)))


def test_the_interval_of_mean_average_precision_covers_the_score_of_all_images() -> None:
    """100 samples of 200 out of 20,000 images: the 95 % interval holds the large set's score in at least 88 of them."""
    truth, log_odds = several(20_000)
    whole = average_precision_score(truth.values, log_odds, average="macro")
    measure, covered = Multilabel(NAMES).measure, 0
    for trial in range(100):
        sample = np.random.default_rng(trial).integers(0, 20_000, 200)
        images = addressed(200)
        part = Truth(images, truth.values[sample])
        score = measure.score(measure.rows(predictions(images, log_odds[sample]), part))
        covered += score.low <= whole <= score.high
    assert covered >= 88


def test_a_better_model_is_told_from_chance_and_an_equal_one_is_not() -> None:
    truth, good = several(skill=3, seed=1)
    _, poor = several(skill=1, seed=2)
    _, alike = several(skill=3, seed=3)
    measure = Multilabel(NAMES).measure
    rows = [measure.rows(predictions(truth.images, odds), truth) for odds in (poor, good, alike)]
    better = measure.paired(rows[0], rows[1])
    assert better.p_value < 0.01
    assert better.difference.value == pytest.approx(measure.score(rows[1]).value - measure.score(rows[0]).value)
    assert better.difference.low > 0
    assert measure.paired(rows[1], rows[2]).p_value > 0.05
    same = measure.paired(rows[0], rows[0])
    assert (same.p_value, same.difference.value) == (1.0, 0.0)


def test_models_are_compared_on_the_images_that_both_answered() -> None:
    truth, log_odds = several()
    for task, labels in ((Multilabel(NAMES), truth), (Classify(NAMES), Truth(truth.images, np.zeros(300, np.int64)))):
        rows = task.measure.rows(predictions(truth.images, log_odds), labels)
        assert task.measure.paired(rows.slice(0, 250), rows.slice(100)).images == 150
        with pytest.raises(ValueError, match="no image in common"):
            task.measure.paired(rows.slice(0, 100), rows.slice(100))
        with pytest.raises(ValueError, match="7 labelled images are unreadable"):
            task.measure.score(rows.slice(0, 0), unreadable=7)


def test_one_class_per_image_is_scored_by_its_best_class() -> None:
    truth = Truth(addressed(4), np.array([0, 1, 1, 2]))
    log_odds = np.array([[3, 0, -1], [0, 3, -1], [0, -1, 3], [-1, 0, 3]], np.float16)
    measure = Classify(NAMES).measure
    rows = measure.rows(predictions(truth.images, log_odds), truth)
    assert rows["row"].to_pylist() == [0, 1, 2, 3]
    score = measure.score(rows)
    assert (score.name, score.value, score.images) == ("accuracy", 0.75, 4)
    assert score.per_class == {"cat": 1.0, "dog": 0.5, "owl": 1.0}
    assert (score.low, score.high) == pytest.approx((0.3006, 0.9544), abs=1e-4)  # scipy's Wilson of 3 of 4


def test_overconfidence_is_that_of_the_second_model() -> None:
    truth, log_odds = several()
    for task, labels in ((Multilabel(NAMES), truth), (Classify(NAMES), Truth(truth.images, np.zeros(300, np.int64)))):
        calm, sure = (task.measure.rows(predictions(truth.images, f * log_odds), labels) for f in (1, 4))
        change = task.measure.overconfidence(calm, sure)
        assert change is not None
        assert change.low > 0


def test_text_of_several_labels_is_split_and_images_may_have_none() -> None:
    column = pa.chunked_array([["cat; red car,dog", None], ["", " owl ;", "cat"]])
    assert split(column).to_pylist() == [["cat", "red car", "dog"], [], [], ["owl"], ["cat"]]


def test_targets_and_right_pseudo_labels() -> None:
    task = Multilabel(NAMES)
    truth = Truth(addressed(3), np.array([[True, True, False], [False] * 3, [False, False, True]]))
    table = task.true_targets(truth)
    assert table["classes"].to_pylist() == [[0, 1], [], [2]]
    assert table["weights"].to_pylist() == [[1.0, 1.0], [], [1.0]]
    pseudo = pa.table({"shard": [0, 0, 0], "row": [2, 0, 0], "class": [2, 1, 2]})
    assert task.correct(pseudo, truth).tolist() == [True, True, False]
    strange = pa.table({"shard": [0, 1], "row": [0, 5], "class": [0, 0]})
    with pytest.raises(ValueError, match="1 images have no true label, first shard 1 row 5"):
        task.correct(strange, truth)
    assert Classify(NAMES).digest == NAMES.hash
    assert task.digest != NAMES.hash


def test_top_five_and_balanced_accuracy_are_those_of_scikit_learn() -> None:
    """Seven classes, all scores stored, two of them rare."""
    rng = np.random.default_rng(3)
    truth = rng.choice(7, 400, p=[0.3, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02])
    logits = rng.normal(0, 1, (400, 7)) + 1.5 * np.eye(7)[truth]
    order = np.argsort(-logits, axis=1)
    names = tuple("abcdefg")
    place = (order == truth[:, None]).argmax(axis=1) + 1
    rows = pa.table(
        [
            np.zeros(400, np.int32),
            np.arange(400, dtype=np.int32),
            truth.astype(np.int32),
            order[:, 0].astype(np.int32),
            rng.random(400).astype(np.float32),
            np.where(place <= 5, place, 0).astype(np.int32),
        ],
        schema=ROWS,
    )
    details = AccuracyMeasure(names).score(rows).details
    value, low, high = details["top_5"]
    assert value == pytest.approx(metrics.top_k_accuracy_score(truth, logits, k=5))
    assert low < value < high
    value, low, high = details["balanced_accuracy"]
    assert value == pytest.approx(metrics.balanced_accuracy_score(truth, order[:, 0]))
    assert low < value < high
    assert len(details["confused"]) == 10
    assert sum(count for *_, count in details["confused"]) <= (truth != order[:, 0]).sum()
