"""Adaptive cuts, per-class thresholds, margins and the published thinning: plain loops say the same, for any split of the work."""

from typing import Any

import numpy as np
import pytest

from engine.select import scores
from engine.select.histogram import Histogram
from engine.select.histogram_step import ScoreHistograms
from engine.select.rule import PassStatistics, make_rule
from engine.select.select import Selector
from engine.settings.block import SettingsError, parse
from engine.settings.select import SelectSettings
from tests.select.tables import Pool, random_pool

CONFIDENCE = np.random.default_rng(9).uniform(0.4, 0.9, 50)


def seen_of(pool: Pool, settings: SelectSettings, pieces: int = 1) -> PassStatistics:
    """The histograms counted by several workers."""
    workers = []
    for piece in np.array_split(np.arange(len(pool.shard)), pieces):
        counted = ScoreHistograms(settings.score, Histogram(len(pool.manifest)), Histogram(len(pool.manifest)))
        counted.update(pool.table(piece))
        workers.append(counted)
    first, *others = workers
    for other in others:
        first.merge(other)
    return PassStatistics(first.best, first.stored, CONFIDENCE)


def selected(pool: Pool, settings: SelectSettings, pieces: int = 1) -> Any:
    """The table and report of a selection whose two passes were split among workers."""
    rule = make_rule(settings, pool.manifest, seen_of(pool, settings, pieces))
    random = np.random.default_rng(pieces)
    workers = []
    for piece in np.array_split(random.permutation(len(pool.shard)), pieces):
        workers.append(Selector(settings, pool.manifest, rule))
        workers[-1].update(pool.table(piece))
    first, *others = workers
    for other in others:
        first.merge(other)
    return first.finish()


SETTINGS: list[dict[str, Any]] = [
    {"score": "margin", "threshold": 0.4, "per_class": 30},
    {"score": "margin", "cut": "quantile", "share": 0.3},
    {"thresholds": {"class 1": 0.8, "class 2": 0.0}, "threshold": 0.5, "per_class": 20},
    {"cut": "quantile", "share": 0.2, "threshold": 0.3},
    {"cut": "flexmatch", "threshold": 0.6},
    {"cut": "freematch", "at_most": 0.5},
    {"cut": "adamatch", "share": 0.8, "targets": "hard"},
    {"cut": "softmatch", "per_class": 40},
    {"threshold": 0.9, "at_least": 0.5},
    {"balance": "published", "per_class": 25, "threshold": 0.3},
]


@pytest.mark.parametrize("tree", SETTINGS, ids=lambda tree: "-".join(map(str, tree.values())))
def test_the_same_for_any_split(tree: dict[str, Any]) -> None:
    pool = random_pool(600, 6, 3, seed=1)
    settings = SelectSettings(**tree)
    table, report = selected(pool, settings)
    split_table, split_report = selected(pool, settings, pieces=5)
    assert table.num_rows > 0
    assert split_table.equals(table, check_metadata=True)
    assert split_report.as_dict() == report.as_dict()


def chosen(table: Any) -> set[tuple[int, int]]:
    return set(zip(table["shard"].to_pylist(), table["row"].to_pylist(), strict=True))


def addresses(pool: Pool, keep: np.ndarray) -> set[tuple[int, int]]:
    return set(zip(pool.shard[keep].tolist(), pool.row[keep].tolist(), strict=True))


def test_margin_is_the_difference_of_the_two_best() -> None:
    pool = random_pool(400, 5, 3, seed=2)
    p = scores.probability(pool.log_odds)
    table, _ = selected(pool, SelectSettings(score="margin", threshold=0.37))
    assert chosen(table) == addresses(pool, p[:, 0] - p[:, 1] > 0.37)


def test_margins_next_to_one_keep_their_order() -> None:
    """An over-confident teacher: all margins round to 1, their scores do not."""
    log_odds = np.array([[9.0, -10], [12.0, -13], [16.0, -17]], np.float16)
    assert (np.diff(scores.margin_score(log_odds).astype(float)) > 1).all()
    assert scores.margin_score(np.zeros((1, 2), np.float16))[0] == np.finfo(np.float16).min


def test_thresholds_of_single_classes() -> None:
    pool = random_pool(400, 5, 3, seed=3)
    cuts = np.array([0.5, 0.8, 0.5, 0.0, 0.5])
    table, report = selected(pool, SelectSettings(threshold=0.5, thresholds={"class 1": 0.8, "class 3": 0.0}))
    p = scores.probability(pool.log_odds[:, 0])
    assert chosen(table) == addresses(pool, p > cuts[pool.classes[:, 0]])
    assert report.cut[1] == pytest.approx(0.8, abs=1e-3)
    with pytest.raises(ValueError, match="no class is called stranger"):
        make_rule(SelectSettings(thresholds={"stranger": 0.5}), pool.manifest)


def test_quantile_keeps_the_best_share_of_each_class() -> None:
    pool = random_pool(3000, 4, 2, seed=4)
    table, report = selected(pool, SelectSettings(cut="quantile", share=0.25))
    total = np.bincount(pool.classes[:, 0], minlength=4)
    assert (report.kept >= np.ceil(0.25 * total)).all()
    p = scores.probability(pool.log_odds[:, 0])
    for c in range(4):
        mine = table["score"].to_numpy()[table["class"].to_numpy() == c]
        strictly = (p[pool.classes[:, 0] == c] > scores.probability(mine.min())).sum()
        assert strictly < np.ceil(0.25 * total[c])


def test_adamatch_is_a_share_of_the_labelled_confidence() -> None:
    pool = random_pool(400, 5, 3, seed=5)
    p = scores.probability(pool.log_odds[:, 0])
    table, _ = selected(pool, SelectSettings(cut="adamatch", share=0.8))
    assert chosen(table) == addresses(pool, p > 0.8 * CONFIDENCE.mean())
    with pytest.raises(ValueError, match=r"select inside jobs\.self_train"):
        make_rule(SelectSettings(cut="adamatch"), pool.manifest, PassStatistics(Histogram(5)))


def test_softmatch_keeps_an_image_with_its_weight() -> None:
    """Kept in the long run as often as the formula says, within 3 sigma; everything above the mean confidence."""
    pool = random_pool(20_000, 4, 2, seed=6)
    p = scores.probability(pool.log_odds[:, 0])
    table, _ = selected(pool, SelectSettings(cut="softmatch"))
    weight = np.exp(-(np.minimum(p - p.mean(), 0) ** 2) / (2 * p.var(ddof=1) / 4))
    assert abs(table.num_rows - weight.sum()) < 3 * np.sqrt((weight * (1 - weight)).sum())
    assert addresses(pool, p > p.mean() + 1e-9) <= chosen(table)


@pytest.mark.parametrize(("at_least", "at_most", "threshold"), [(0.6, 1.0, 0.95), (0.0, 0.1, 0.2)])
def test_the_accepted_share_has_a_floor_and_a_ceiling(at_least: float, at_most: float, threshold: float) -> None:
    pool = random_pool(2000, 4, 2, seed=7)
    table, _ = selected(pool, SelectSettings(threshold=threshold, at_least=at_least, at_most=at_most))
    share = table.num_rows / 2000
    assert at_least - 0.05 <= share <= at_most + 1e-9
    assert share >= at_least or at_least == 0


def test_the_published_filter_draws_about_k_a_class() -> None:
    pool = random_pool(20_000, 4, 2, seed=8)
    table, report = selected(pool, SelectSettings(balance="published", per_class=500, threshold=0.3))
    assert (abs(report.copies - 500) < 3 * np.sqrt(500)).all()
    assert table["count"].to_numpy().min() >= 1
    assert int(table["count"].to_numpy().sum()) == report.copies.sum()


@pytest.mark.parametrize(
    ("tree", "remedy"),
    [
        ({"balance": "duplicate"}, "set per_class"),
        ({"balance": "published"}, "set per_class"),
        ({"balance": "published", "per_class": 5, "cut": "freematch"}, "balance=duplicate"),
        ({"score": "margin", "classes_per_image": 2}, "set classes_per_image=1"),
        ({"cut": "freematch", "classes_per_image": 2}, "set classes_per_image=1"),
        ({"score": "margin", "cut": "flexmatch", "threshold": 0.9}, "score=max_probability, or cut=quantile"),
        ({"cut": "quantile"}, "set share"),
        ({"share": 0.5}, "leave share out"),
        ({"cut": "flexmatch"}, "set threshold, 0.95"),
        ({"cut": "freematch", "thresholds": {"a": 0.5}}, "leave out one of them"),
        ({"thresholds": {"a": 1.5}}, "less than 1"),
        ({"at_least": 0.5, "at_most": 0.2}, "must not exceed"),
        ({"cut": "softmatch", "at_least": 0.5}, "take another cut"),
        ({"score": "energy", "threshold": 0.5}, "set per_class, or cut=quantile"),
        ({"score": "entropy", "cut": "freematch"}, "score=max_probability, or cut=quantile"),
        ({"prior": {"a": 1}}, "set per_class, or balance=truncate"),
        ({"prior": {"a": -1}, "per_class": 5}, "greater than or equal to 0"),
    ],
)
def test_what_means_nothing_is_refused_with_the_remedy(tree: dict[str, Any], remedy: str) -> None:
    with pytest.raises(SettingsError, match=remedy):
        parse(SelectSettings, tree, "here")


@pytest.mark.parametrize(
    "tree", [{"cut": "softmatch"}, {"balance": "published", "per_class": 25}, {"cut": "quantile", "share": 0.3}]
)
def test_rules_of_other_predictions_differ_and_their_states_do_not_merge(tree: dict[str, Any]) -> None:
    """The settings are the same, what they come to on other predictions is not."""
    settings = SelectSettings(**tree)
    pool, other = (random_pool(600, 6, 3, seed=seed) for seed in (1, 2))
    rule, again, strange = (make_rule(settings, pool.manifest, seen_of(one, settings)) for one in (pool, pool, other))
    assert rule == again
    assert rule != strange
    assert rule != "a rule"
    state = Selector(settings, pool.manifest, rule)
    state.merge(Selector(settings, pool.manifest, again))
    with pytest.raises(ValueError, match="cannot merge selections of different settings"):
        state.merge(Selector(settings, pool.manifest, strange))


def test_counts_of_another_score_do_not_merge() -> None:
    counted = ScoreHistograms("margin", Histogram(2), Histogram(2))
    with pytest.raises(ValueError, match="cannot merge histograms of entropy and margin"):
        counted.merge(ScoreHistograms("entropy", Histogram(2), Histogram(2)))
