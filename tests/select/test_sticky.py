"""Sticky labels: scikit-learn's SelfTrainingClassifier reproduced exactly, and the same rule between tables."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.semi_supervised import SelfTrainingClassifier

from engine.select.select import Selector
from engine.select.sticky import Sticky, carry_over
from engine.settings import SelectSettings
from tests.select.tables import random_pool

ESTIMATORS = [LogisticRegression(max_iter=60), GaussianNB(var_smoothing=1e-2)]


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images and labels, 5 % of them given."""
    images, truth = load_digits(return_X_y=True)
    given = np.random.default_rng(0).random(len(truth)) < 0.05
    return images / 16, np.where(given, truth, -1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(
    "mode",
    [{"threshold": 0.9}, {"k_best": 60}, {"k_best": 5000}, {"threshold": 0.5, "max_iter": 2}, {"threshold": 0.9999999}],
)
def test_reproduces_scikit_learn(estimator: Any, mode: dict) -> None:
    """Same labels, same rounds, same reason to stop, with scikit-learn's own estimators plugged in."""
    images, labels = digits()
    criterion = {"criterion": "k_best"} if "k_best" in mode else {}
    reference = SelfTrainingClassifier(estimator, **criterion, **mode).fit(images, labels)
    sticky = Sticky(labels, **mode)
    while sticky.stop is None:
        estimator.fit(images[sticky.labelled], sticky.labels[sticky.labelled])
        sticky.accept(estimator.predict_proba(images[~sticky.labelled]))
    assert np.array_equal(sticky.labeled_iter, reference.labeled_iter_)
    assert np.array_equal(sticky.labels, reference.transduction_)
    assert sticky.stop == reference.termination_condition_
    assert sticky.num_iter == reference.n_iter_


def test_stopped_means_stopped() -> None:
    """Given labels are never touched, and a finished run takes no further round."""
    given = np.array([0, 1])
    sticky = Sticky(given)
    assert sticky.stop == "all_labeled"
    with pytest.raises(ValueError, match="stopped: all_labeled"):
        sticky.accept(np.ones((0, 2)))


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
