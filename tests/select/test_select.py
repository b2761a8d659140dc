"""Selection in every mode against the plainest one, however the work was split."""

import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.labels import targets
from engine.select import scores, topk
from engine.select.select import Selector, soften
from engine.settings.select import RankBy, SelectSettings
from engine.tables import schema
from tests.select.tables import as_dict, brute_force, manifest, random_pool

PRIORS = st.lists(st.sampled_from([0, 1, 2, 5, 16]), min_size=6, max_size=6).filter(any)
MODES = st.builds(
    SelectSettings,
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.9]),
    per_class=st.integers(1, 60),
    classes_per_image=st.integers(1, 3),
    balance=st.sampled_from(["none", "truncate", "duplicate"]),
    targets=st.sampled_from(["hard", "soft"]),
) | st.builds(SelectSettings, threshold=st.sampled_from([0.0, 0.5]), balance=st.sampled_from(["none", "truncate"]))
MODES |= st.builds(
    SelectSettings,
    threshold=st.sampled_from([0.0, 0.5]),
    per_class=st.integers(1, 60),
    prior=PRIORS.map(lambda weights: {f"class {i}": float(weight) for i, weight in enumerate(weights)}),
    balance=st.sampled_from(["none", "truncate", "duplicate"]),
)


@pytest.fixture(autouse=True)
def _small_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topk, "SLACK_ROWS", 16)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mode=MODES, seed=st.integers(0, 1000), num_workers=st.integers(1, 4))
def test_every_mode_equals_brute_force(mode: SelectSettings, seed: int, num_workers: int) -> None:
    """Same images, ranks and counts as one plain loop, and bit for bit the table of a single worker."""
    pool = random_pool(300, 6, 3, seed)
    single = Selector(mode, pool.manifest)
    single.update(pool.table())
    table, report = single.finish()
    assert as_dict(table) == brute_force(pool, mode)

    random = np.random.default_rng(seed)
    workers = [Selector(mode, pool.manifest) for _ in range(num_workers)]
    for i, piece in enumerate(np.split(random.permutation(300), np.sort(random.integers(0, 300, 9)))):
        workers[i % num_workers].update(pool.table(piece))
    first, *others = (pickle.loads(pickle.dumps(worker)) for worker in workers)
    for other in others:
        first.merge(other)
    split_table, split_report = first.finish()
    assert split_table.equals(table, check_metadata=True)
    assert split_report.as_dict() == report.as_dict()


def test_duplication_fills_every_class_exactly() -> None:
    """Counts sum to K for every class that has an image, and the best rows get the extra copies."""
    pool = random_pool(200, 6, 2, seed=0)
    mode = SelectSettings(threshold=0.6, per_class=50, balance="duplicate")
    selector = Selector(mode, pool.manifest)
    selector.update(pool.table())
    table, report = selector.finish()
    assert set(report.copies[report.kept > 0].tolist()) == {50}
    counts = table.to_pandas().sort_values(["class", "rank"]).groupby("class")["count"]
    assert all(group.is_monotonic_decreasing and group.max() - group.min() <= 1 for _, group in counts)


def test_over_confident_teacher_is_ranked_exactly() -> None:
    """A third of p > 0.9997: rounded probabilities would tie at the top, stored log-odds pick the true best."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 1, (20_000, 4))
    logits[np.arange(20_000), random.integers(0, 4, 20_000)] += random.exponential(10, 20_000)
    log_odds = np.stack([logits[:, c] - np.logaddexp.reduce(np.delete(logits, c, 1), axis=1) for c in range(4)], 1)
    best = log_odds.argmax(axis=1)
    stored = log_odds.max(axis=1, keepdims=True).astype(np.float16)
    assert (scores.probability(stored) > 0.9997).mean() > 1 / 3
    shard = np.arange(20_000, dtype=np.int32)
    names = manifest(4)
    selector = Selector(SelectSettings(per_class=500, targets="hard"), names)
    selector.update(scores.pack(shard, shard, best[:, None], stored, schema.predictions(4, names.hash, 1)))
    table, _ = selector.finish()
    for c in range(4):
        mine = np.flatnonzero(best == c)
        worst_kept = np.sort(stored[mine, 0])[-500]
        chosen = np.asarray(table["shard"])[np.asarray(table["class"]) == c]
        assert (stored[chosen, 0] >= worst_kept).all()
        assert set(mine[stored[mine, 0] > worst_kept]) <= set(chosen.tolist())
        # Rounding may swap only neighbours of the last kept score: true order is kept to float16's step.
        exact = mine[np.argsort(-log_odds[mine, best[mine]])[:500]]
        assert len(np.intersect1d(exact, chosen)) >= 495
        rounded = mine[np.argsort(-scores.probability(stored[mine, 0]).astype(np.float16), kind="stable")[:500]]
        assert len(np.intersect1d(rounded, chosen)) < 300


def test_soft_targets_keep_or_sharpen() -> None:
    """T=1: the teacher's probabilities with residual mass; else p^(1/T) over its sum over all classes, stored or at hand."""
    logits = np.random.default_rng(0).normal(0, 2, (50, 6))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    p = -np.sort(-p, axis=1)
    log_odds = np.log(p / (1 - p)).astype(np.float16)
    assert np.allclose(soften(log_odds[:, :3], 1.0, 6), scores.probability(log_odds[:, :3]))
    for temperature in (0.5, 2.0):
        whole = p ** (1 / temperature)
        total = whole.sum(axis=1, keepdims=True)
        assert np.allclose(soften(log_odds, temperature, 6), whole / total, rtol=5e-3, atol=1e-4)
        stored = soften(log_odds[:, :3], temperature, 6, np.log(total).astype(np.float16))
        assert np.allclose(stored, (whole / total)[:, :3], rtol=1e-2, atol=1e-3)


def test_sharpening_needs_the_sum_over_all_classes() -> None:
    """Refused where it was not stored, with the remedy; made where it was."""
    pool = random_pool(40, 5, 2, seed=7)
    mode = SelectSettings(temperature=0.5)
    with pytest.raises(
        ValueError, match=r"top 2 are stored without it: .*predict\.log_sum_exp=\[0\.5\] or predict\.top_p=5"
    ):
        Selector(mode, pool.manifest).update(pool.table())
    with pytest.raises(ValueError, match=r"entropy was not stored.*extra_scores"):
        Selector(SelectSettings(score="entropy"), pool.manifest).update(pool.table())
    p = scores.probability(pool.log_odds)
    log_sum = np.log((p**2).sum(axis=1) + 0.01).astype(np.float16)
    kind = schema.predictions(5, pool.manifest.hash, 2, ["log_sum_exp_0.5"])
    table = scores.pack(pool.shard, pool.row, pool.classes, pool.log_odds, kind, [log_sum])
    selector = Selector(mode, pool.manifest)
    selector.update(table)
    chosen, _ = selector.finish()
    where = {address: i for i, address in enumerate(zip(pool.shard.tolist(), pool.row.tolist(), strict=True))}
    rows = [where[address] for address in zip(chosen["shard"].to_pylist(), chosen["row"].to_pylist(), strict=True)]
    weights = np.array(chosen["weights"].to_pylist())
    assert np.allclose(weights, (p**2 / np.exp(log_sum.astype(float))[:, None])[rows], rtol=1e-4)


@pytest.mark.parametrize("score", ["entropy", "energy"])
def test_stored_scores_rank(score: RankBy) -> None:
    """The K best of each class by the column that was stored; an energy is told as it is."""
    pool = random_pool(300, 4, 2, seed=8)
    column = np.random.default_rng(8).normal(0, 5, 300).astype(np.float16)
    kind = schema.predictions(4, pool.manifest.hash, 2, [score])
    selector = Selector(SelectSettings(score=score, per_class=10), pool.manifest)
    selector.update(scores.pack(pool.shard, pool.row, pool.classes, pool.log_odds, kind, [column]))
    table, report = selector.finish()
    for c in range(4):
        wanted = -np.sort(-column[pool.classes[:, 0] == c])[:10]
        assert np.array_equal(table["score"].to_numpy()[table["class"].to_numpy() == c], wanted)
        told = float(wanted[-1]) if score == "energy" else float(scores.probability(wanted[-1]))
        assert report.lowest[c] == told


def test_soft_targets_travel_with_the_winners() -> None:
    """Each pseudo-label carries the stored classes and probabilities of its own image, through compactions."""
    pool = random_pool(400, 6, 3, seed=4)
    selector = Selector(SelectSettings(per_class=15), pool.manifest)
    for start in range(0, 400, 37):
        selector.update(pool.table(slice(start, start + 37)))
    table, _ = selector.finish()
    where = {(s, r): i for i, (s, r) in enumerate(zip(pool.shard.tolist(), pool.row.tolist(), strict=True))}
    rows = [where[key] for key in zip(table["shard"].to_pylist(), table["row"].to_pylist(), strict=True)]
    made = targets.Targets(table["classes"].combine_chunks(), table["weights"].combine_chunks())
    targets.check(made, 6, "table")
    classes, weights = targets.padded(made)
    assert np.array_equal(classes, pool.classes[rows])
    p = scores.probability(pool.log_odds[rows])
    assert np.allclose(weights, p / np.maximum(p.sum(axis=1, keepdims=True), 1))
    schema.check(table, schema.pseudo_labels(6, pool.manifest.hash), "table")


def test_report_tells_of_classes_with_too_little() -> None:
    """Empty classes and a K larger than what exists are told with counts."""
    pool = random_pool(100, 6, 1, seed=5)
    selector = Selector(SelectSettings(threshold=0.5, per_class=1000), pool.manifest)
    keep = pool.classes[:, 0] != 2
    selector.update(pool.table(np.flatnonzero(keep)))
    table, report = selector.finish()
    assert report.empty == ("class 2",)
    assert set(report.short) == {f"class {c}" for c in (0, 1, 3, 4, 5)}
    assert "1 of 6 classes have no image above threshold 0.5" in report.warnings[0]
    assert f"class 0 has {report.available[0]}" in report.warnings[1]
    above = keep & (scores.probability(pool.log_odds[:, 0]) > 0.5)
    assert report.available.sum() == above.sum() == len(table)
    lowest = scores.probability(pool.log_odds[above & (pool.classes[:, 0] == 0), 0]).min()
    assert report.lowest[0] == lowest
    assert np.isnan(report.lowest[2])


def test_a_prior_gives_quotas_and_tells_who_has_too_little() -> None:
    """Quotas in proportion, together K x C; a class that has less is told with its own quota, one that is not wanted is not."""
    pool = random_pool(300, 4, 1, seed=9)
    prior = {"class 0": 1.0, "class 1": 6.0, "class 2": 0.0, "class 3": 1.0}
    selector = Selector(SelectSettings(per_class=50, prior=prior), pool.manifest)
    keep = pool.classes[:, 0] != 3
    selector.update(pool.table(np.flatnonzero(keep)))
    _, report = selector.finish()
    there = np.bincount(pool.classes[keep, 0], minlength=4)
    assert report.quota is not None
    assert report.quota.tolist() == [25, 150, 0, 25]
    assert report.kept.tolist() == np.minimum(there, [25, 150, 0, 25]).tolist()
    assert (report.empty, report.short) == (("class 3",), ("class 1",))
    assert f"class 1 has {there[1]} of 150" in report.warnings[1]
    with pytest.raises(ValueError, match=r"select\.prior: class 1, class 2, class 3 has none"):
        Selector(SelectSettings(per_class=5, prior={"class 0": 1.0}), pool.manifest)
    with pytest.raises(ValueError, match="no class is called stranger"):
        Selector(SelectSettings(per_class=5, prior=prior | {"stranger": 1.0}), pool.manifest)


def test_nothing_selected_is_an_empty_table() -> None:
    """No predictions at all still make a table of the right schema and a report that says so."""
    table, report = Selector(SelectSettings(per_class=3, balance="truncate"), manifest(3)).finish()
    assert len(table) == 0
    schema.check(table, schema.pseudo_labels(3, manifest(3).hash), "table")
    assert len(report.empty) == 3


def test_unusable_predictions_are_refused() -> None:
    """Too few stored classes, another class list, scores that are not numbers, duplication without K."""
    pool = random_pool(20, 5, 2, seed=6)
    with pytest.raises(
        ValueError, match=r"classes_per_image=3, but only the top 2 classes of an image are stored.*top_p=3"
    ):
        Selector(SelectSettings(classes_per_image=3), pool.manifest).update(pool.table())
    with pytest.raises(ValueError, match="classes_hash"):
        Selector(SelectSettings(), manifest(5).from_names("abcde")).update(pool.table())
    pool.log_odds[7, 1] = np.nan
    with pytest.raises(ValueError, match=f"not a number for 1 images, first shard {pool.shard[7]} row {pool.row[7]}"):
        Selector(SelectSettings(), pool.manifest).update(pool.table())
    with pytest.raises(ValueError, match="set per_class"):
        Selector(SelectSettings(balance="duplicate"), pool.manifest)
