"""The two passes over the disk: in every mode, for every split, the table and the report of the one pass, bit for bit."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.select import topk
from engine.select.quota import truncated, weights
from engine.select.route import pieces, route
from engine.select.select import Selector
from engine.select.two_pass import ScoreBins, filter_candidates, rank_candidates
from engine.settings.select import SelectSettings
from tests.select.tables import Pool, as_dict, brute_force, random_pool
from tests.select.test_rule import make_rule, seen_of
from tests.select.test_select import MODES

C = 6
PRIOR = {f"class {i}": weight for i, weight in enumerate([5, 1, 0, 2, 3, 1])}
MORE: list[dict[str, Any]] = [
    {"score": "margin", "threshold": 0.4, "per_class": 30},
    {"cut": "quantile", "share": 0.3, "per_class": 7},
    {"cut": "softmatch", "per_class": 9},
    {"cut": "freematch", "at_most": 0.5},
    {"balance": "published", "per_class": 25, "threshold": 0.3},
    {"per_class": 9, "prior": PRIOR, "balance": "duplicate"},
    {"prior": PRIOR, "balance": "truncate", "threshold": 0.3},
    {"per_class": 8, "classes_per_image": 2, "targets": "soft"},
]


@pytest.fixture(autouse=True)
def _small_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topk, "SLACK_ROWS", 16)


def on_disk(pool: Pool, empty: Selector, seed: int, part_rows: int) -> tuple[Any, Any]:
    """What `passes` does, without Ray and files."""
    random = np.random.default_rng(seed)
    cut = np.sort(random.integers(0, len(pool.shard), 4))
    split = [pool.table(piece) for piece in np.split(random.permutation(len(pool.shard)), cut)]
    counted = ScoreBins(empty.rule.cuts)
    for table in split:
        mine = ScoreBins(empty.rule.cuts)
        mine.images = table.num_rows
        for classes, score, *_ in empty.candidates(table):
            mine.update(classes, score)
        counted.merge(mine.table())
    quota = empty.rule.quota
    kept = counted.available if quota is None else np.minimum(counted.available, quota)
    if empty.settings.balance == "truncate":
        quota = kept = truncated(kept, weights(empty.settings, empty.classes))
    lowest = counted.lowest(quota)
    kept_back = [filter_candidates(empty.candidates(table), empty.rule.cuts, lowest) for table in split]
    tables = []
    for first, end in pieces(kept, part_rows):
        mine_only = [t.filter((t["class"].to_numpy() >= first) & (t["class"].to_numpy() < end)) for t in kept_back]
        tables.append(empty.table(rank_candidates(mine_only, empty, quota, first, end)))
    assert [table.num_rows for table in tables] == [
        int(kept[first:end].sum()) for first, end in pieces(kept, part_rows)
    ]
    return tables, empty.report(tables, counted.available, counted.images)


def same(pool: Pool, mode: SelectSettings, seed: int) -> Any:
    rule = make_rule(mode, pool.manifest, seen_of(pool, mode))
    one = Selector(mode, pool.manifest, rule)
    one.update(pool.table())
    table, report = one.finish()
    pieces_made, told = on_disk(pool, one.empty(), seed, part_rows=1 + seed % 40)
    assert [row for piece in pieces_made for row in piece.to_pylist()] == table.to_pylist()
    assert told.as_dict() == report.as_dict()
    return table


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mode=MODES, seed=st.integers(0, 1000))
def test_every_mode_equals_one_pass_and_brute_force(mode: SelectSettings, seed: int) -> None:
    pool = random_pool(300, C, 3, seed)
    assert as_dict(same(pool, mode, seed)) == brute_force(pool, mode)


@pytest.mark.parametrize("tree", MORE, ids=lambda tree: "-".join(map(str, tree)))
@pytest.mark.parametrize("seed", [0, 5])
def test_draws_cuts_and_priors_equal_one_pass(tree: dict[str, Any], seed: int) -> None:
    assert same(random_pool(400, C, 3, seed), SelectSettings(**tree), seed).num_rows


def test_all_scores_equal() -> None:
    """A saturated teacher: one bin holds everything, the hashes decide."""
    pool = random_pool(300, C, 1, seed=3)
    pool.log_odds[:] = 17
    assert same(pool, SelectSettings(per_class=11), 3).num_rows == 11 * C


def test_only_what_can_win_is_sifted() -> None:
    """Of many candidates little more than K a class goes to the disk."""
    pool = random_pool(3000, C, 1, seed=4)
    empty = Selector(SelectSettings(per_class=20), pool.manifest)
    counted = ScoreBins(empty.rule.cuts)
    for classes, score, *_ in empty.candidates(pool.table()):
        counted.update(classes, score)
    lowest = counted.lowest(empty.rule.quota)
    kept = filter_candidates(empty.candidates(pool.table()), empty.rule.cuts, lowest)
    assert 20 * C <= kept.num_rows < 30 * C


def test_route_is_decided_by_the_state() -> None:
    """Bytes a row times rows of the log; what has to be held anyway stays in memory."""
    quota = np.full(1000, 50_000)
    big = route(1000, quota, 10**9, 0, 256 * 2**20, sticky=False)
    assert (big.name, big.state_bytes) == ("two passes", 75_000_000 * 12)
    assert "858 MiB is more than cluster.select_state_bytes, 256 MiB" in big.reason
    assert route(1000, quota, 10**9, 0, 2**30, sticky=False).name == "streaming"
    assert route(1000, quota, 10**6, 32, 256 * 2**20, sticky=False).state_bytes == 44 * 10**6
    assert route(1000, None, 10**9, 0, 256 * 2**20, sticky=False).name == "two passes"
    assert route(1000, None, 10**9, 0, 256 * 2**20, sticky=True).name == "streaming"


def test_pieces_cover_all_classes() -> None:
    assert pieces([3, 3, 3, 0, 9, 1], 6) == [(0, 2), (2, 4), (4, 5), (5, 6)]
    assert pieces([0, 0], 6) == [(0, 2)]
