"""Successive halving: known decisions, and what a whole search of runs spends."""

from engine.search.halving import decide_halving
from engine.search.trials import TrialReport
from engine.settings.search import HalvingSettings
from tests.search.making import record


def report(*accuracies: float) -> TrialReport:
    """The last of these after generations 1, 2, …"""
    return record(1, 9, *accuracies).reports[-1]


def test_the_first_to_arrive_goes_on_and_later_ones_are_measured_against_it() -> None:
    settings = HalvingSettings(keep=0.5)
    assert decide_halving(report(0.5), [], settings, 3).goes_on
    assert not decide_halving(report(0.4), [record(1, 0, 0.5)], settings, 3).goes_on
    assert decide_halving(report(0.6), [record(1, 0, 0.5), record(1, 1, 0.4)], settings, 3).goes_on
    third = decide_halving(report(0.5), [record(1, n, a) for n, a in enumerate((0.5, 0.6, 0.7))], settings, 3)
    assert not third.goes_on
    assert third.reason == "3. of 4 after generation 1, the best 2 continue"


def test_only_the_same_generation_counts_and_grace_is_kept() -> None:
    others = [record(1, 0, 0.5, 0.9), record(1, 1, 0.4, 0.95)]
    assert decide_halving(report(0.6), others, HalvingSettings(), 3).goes_on
    assert not decide_halving(report(0.6, 0.7), others, HalvingSettings(), 3).goes_on
    assert decide_halving(report(0.1), others, HalvingSettings(grace=2), 3).goes_on
    assert decide_halving(report(0.6, 0.7), others, HalvingSettings(), 2).goes_on, "the last generation stops nobody"
    assert decide_halving(report(0.1, 0.1), others, None, 3).goes_on


def test_of_trials_in_the_worst_order_all_go_on_and_in_the_best_order_one_does() -> None:
    """Nobody waits, so the order decides what is spent; the best is never stopped."""
    for values, survivors in (([0.1, 0.2, 0.3, 0.4], 4), ([0.4, 0.3, 0.2, 0.1], 1)):
        seen = [record(1, n, a) for n, a in enumerate(values)]
        verdicts = [decide_halving(one.reports[-1], seen[:n], HalvingSettings(), 3) for n, one in enumerate(seen)]
        assert sum(verdict.goes_on for verdict in verdicts) == survivors
        assert verdicts[values.index(max(values))].goes_on
