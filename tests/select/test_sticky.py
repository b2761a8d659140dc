"""Labels once accepted stay: scikit-learn's SelfTrainingClassifier is reproduced, and tables keep what they carry."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.semi_supervised import SelfTrainingClassifier

from engine.labels.classes import ClassList
from engine.select.scores import pack
from engine.select.select import Selector
from engine.select.sticky import carry_over
from engine.settings.select import SelectSettings
from engine.tables import schema
from tests.select.tables import random_pool


def predictions(probabilities: np.ndarray, rows: np.ndarray, classes: ClassList) -> pa.Table:
    """The two best classes of each row as a table of predictions."""
    best = np.argsort(-probabilities, axis=1)[:, :2]
    p = np.clip(np.take_along_axis(probabilities, best, axis=1), 1e-7, 1 - 1e-7)
    form = schema.predictions(len(classes), classes.hash, 2)
    shard, row = np.zeros(len(rows), np.int32), rows.astype(np.int32)
    return pack(shard, row, best, np.log(p / (1 - p)).astype(np.float16), form)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("threshold", [0.9, 0.6])
def test_reproduces_scikit_learn(threshold: float) -> None:
    """Selection and carried labels, round by round, end with the labels of SelfTrainingClassifier."""
    images, truth = load_digits(return_X_y=True)
    images = images / 16
    given = np.random.default_rng(0).random(len(truth)) < 0.05
    labels = np.where(given, truth, -1)
    estimator = LogisticRegression(max_iter=60)
    reference = SelfTrainingClassifier(estimator, threshold=threshold, max_iter=3).fit(images, labels)

    classes = ClassList(tuple(map(str, range(10))))
    pool = np.flatnonzero(~given)
    accepted: pa.Table | None = None
    for _ in range(3):
        known = labels.copy()
        if accepted is not None:
            known[accepted["row"].to_numpy()] = accepted["class"].to_numpy()
        estimator.fit(images[known >= 0], known[known >= 0])
        selector = Selector(SelectSettings(threshold=threshold), classes)
        selector.update(predictions(estimator.predict_proba(images[pool]), pool, classes))
        chosen, _ = selector.finish()
        accepted = chosen if accepted is None else carry_over(accepted, chosen)
    assert accepted is not None
    labels[accepted["row"].to_numpy()] = accepted["class"].to_numpy()
    assert (reference.labeled_iter_ > 1).any(), "later rounds add labels"
    assert np.array_equal(labels, reference.transduction_)


def test_carried_labels_never_change() -> None:
    """An image's earlier class stands though the new teacher says otherwise; new images join behind, ranks run on."""
    pool = random_pool(300, 5, 2, seed=0)

    def chosen(threshold: float, shift: int) -> pa.Table:
        selector = Selector(SelectSettings(threshold=threshold), pool.manifest)
        moved = type(pool)(pool.manifest, pool.shard, pool.row, (pool.classes + shift) % 5, pool.log_odds)
        selector.update(moved.table())
        return selector.finish()[0]

    before, after = chosen(0.8, 0), chosen(0.5, 1)
    together = carry_over(before, after)
    frames = [table.to_pandas().set_index(["shard", "row"]) for table in (before, after, together)]
    old, new, joined = frames
    assert set(joined.index) == set(old.index) | set(new.index)
    assert joined.loc[old.index, "class"].equals(old["class"])
    fresh = new.index.difference(old.index)
    assert len(fresh) > 0
    assert joined.loc[fresh, "class"].equals(new.loc[fresh, "class"])
    for _, group in joined.groupby("class"):
        assert group["rank"].tolist() == list(range(len(group)))
