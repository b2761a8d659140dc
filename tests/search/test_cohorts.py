"""The modes: whose student teaches whom, who copies whom, and that all of it follows from the records and the seed."""

import pytest

from engine.search.allocation import allocate_trials
from engine.search.strategies import cohorts, exploit, propose, start_values
from engine.search.trials import best, run_name, settings_of
from engine.settings.cluster import ClusterSettings
from engine.settings.search import PopulationSettings
from tests.search.making import record, searched

A, B = {"select.threshold": 0.5}, {"select.threshold": 0.7}


def test_the_first_trial_is_the_config_as_it_stands() -> None:
    for mode in ("runs", "greedy", "population"):
        settings = searched(search={"mode": mode})
        first = propose(settings, 1, [], 0, [])
        assert (
            first.values
            == start_values(settings)
            == {"select.threshold": 0.0, "fits.student.noise.pseudo.aa_magnitude": 3.0}
        )
        assert propose(settings, 1, [], 3, []) == propose(settings, 1, [], 3, []) != propose(settings, 1, [], 2, [])
    assert [cohorts(searched(search={"mode": mode})) for mode in ("runs", "greedy", "population")] == [1, 2, 2]


def test_greedy_goes_on_from_the_best_student_and_tries_its_settings_again() -> None:
    settings = searched()
    earlier = [
        record(1, 0, 0.6, before=(), values=A),
        record(1, 1, 0.8, before=(), values=B),
        record(1, 2, 0.8, before=()),
    ]
    same, other = (propose(settings, 2, earlier, number, []) for number in (0, 1))
    assert same.schedule == [B, B]
    assert other.schedule is not None
    assert other.schedule[0] == B
    assert (same.parent, other.parent) == (1, 1)
    with pytest.raises(ValueError, match="no trial of generation 1"):
        propose(settings, 2, [record(1, 0, state="failed")], 0, [])


def test_a_trial_of_a_schedule_is_a_run_with_that_schedule() -> None:
    settings = searched()
    trial = propose(settings, 2, [record(1, 0, 0.6, before=(), values=A)], 1, [])
    run = settings_of(settings.base(), trial, run_name("s", trial))
    assert run.run == "s.2-001"
    assert run.recipe.num_generations == 2
    assert run.selection(1).threshold == 0.5
    assert run.selection(2).threshold == trial.values["select.threshold"]
    assert run.learner(2)[1].noise["pseudo"].aa_magnitude == trial.values["fits.student.noise.pseudo.aa_magnitude"]
    assert run.data.test == "t", "test images stay excluded from the pool, though no trial looks at them"


def test_a_trial_of_runs_has_its_values_in_all_generations() -> None:
    settings = searched(search={"mode": "runs", "space": {"fits.teacher.lr": {"uniform": [0.1, 0.2]}}})
    trial = propose(settings, 1, [], 1, [])
    run = settings_of(settings.base(), trial, "x")
    assert 0.1 <= run.fits.teacher.lr <= 0.2
    assert (run.schedule, run.recipe.num_generations) == (None, 2)


def test_the_worst_copy_the_best_and_explore_the_others_go_on() -> None:
    earlier = [record(1, n, value, before=()) for n, value in enumerate((0.5, 0.9, 0.6, 0.7, 0.8, 0.4, 0.65, 0.55))]
    members = exploit(earlier, PopulationSettings(quantile=0.25))
    assert {n: m.parent for n, m in enumerate(members) if m.explores} == {0: 1, 5: 4}
    assert [m.parent for n, m in enumerate(members) if n not in (0, 5)] == [1, 2, 3, 4, 6, 7]


def test_failed_members_copy_the_best_and_take_the_place_of_the_worst() -> None:
    earlier = [record(1, 0, 0.5, before=()), record(1, 1, state="failed", before=()), record(1, 2, 0.9, before=())]
    members = exploit(earlier, PopulationSettings())
    assert [(m.parent, m.explores) for m in members] == [(0, False), (2, True), (2, False)]
    with pytest.raises(ValueError, match="no member"):
        exploit([record(1, 0, state="failed")], PopulationSettings())


def test_a_population_keeps_the_students_and_gives_a_schedule() -> None:
    settings = searched(search={"mode": "population", "trials": 4, "population": {"resample": 0}})
    earlier = [
        record(1, n, value, before=(), values={"select.threshold": 0.5, "fits.student.noise.pseudo.aa_magnitude": 5})
        for n, value in enumerate((0.9, 0.8, 0.7, 0.6))
    ]
    trials = [propose(settings, 2, earlier, number, []) for number in range(4)]
    assert [trial.parent for trial in trials] == [0, 1, 2, 0]
    assert trials[0].schedule == [earlier[0].trial.values] * 2
    moved = trials[3].values
    assert moved["select.threshold"] in (0.34, 0.66)
    assert moved["fits.student.noise.pseudo.aa_magnitude"] in (3, 7)


def test_the_best_of_equals_is_the_cheapest() -> None:
    assert best([record(2, 0, 0.8), record(1, 3, 0.8), record(1, 2, 0.7), record(1, 4, state="failed")]) == record(
        1, 3, 0.8
    )
    assert best([record(1, 4, 0.9, state="failed")]) is None, "what it reported before it failed is another trial's"


def test_a_stopped_trial_is_the_best_only_when_none_finished() -> None:
    stopped, finished = [record(1, n, 0.9 + n / 100, state="stopped") for n in (0, 1)], record(1, 2, 0.6, 0.7)
    assert best([*stopped, finished]) == finished
    assert best([*stopped, record(1, 3, state="failed")]) == stopped[1]


@pytest.mark.parametrize(
    ("resources", "cluster", "trials", "wanted", "concurrent", "train_cpus", "labelling"),
    [
        ({"CPU": 2}, {}, 12, None, 2, 1, 1),
        ({"CPU": 16}, {}, 4, None, 4, 4, 4),
        ({"CPU": 16}, {}, 12, 2, 2, 8, 8),
        ({"CPU": 16}, {"workers": 2, "cpus": 4}, 12, None, 2, 4, 8),
        ({"CPU": 64, "GPU": 8}, {}, 12, None, 8, None, 1),
        ({"CPU": 64, "GPU": 8}, {"workers": 4}, 12, None, 2, None, 4),
        ({"CPU": 16, "memory": 7 * 2**30}, {}, 12, None, 2, 8, 8),
    ],
)
def test_trials_at_once_are_those_that_the_cluster_feeds(
    resources: dict[str, float],
    cluster: dict[str, int],
    trials: int,
    wanted: int | None,
    concurrent: int,
    train_cpus: int | None,
    labelling: int,
) -> None:
    decision = allocate_trials(resources, ClusterSettings(train=cluster), trials, wanted)
    assert decision.concurrent == concurrent
    assert (decision.cluster.train.cpus, decision.cluster.label.workers) == (train_cpus, labelling)
    fits = decision.concurrent * decision.cluster.train.workers * (decision.cluster.train.cpus or 1)
    assert fits <= resources["CPU"], "all trials can fit at once"


def test_a_trials_worker_fits_on_one_machine() -> None:
    decision = allocate_trials({"CPU": 12}, ClusterSettings(), 8, 2, nodes=[4, 4, 4])
    assert (decision.concurrent, decision.cluster.train.cpus) == (2, 4)


def test_a_trials_fit_does_not_grow_into_the_share_of_another() -> None:
    elastic = ClusterSettings(train={"workers": 4, "min_workers": 1})
    decision = allocate_trials({"CPU": 64, "GPU": 8}, elastic, 8)
    assert (decision.concurrent, decision.cluster.train.workers, decision.cluster.train.min_workers) == (2, 4, None)


def test_a_trial_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match=r"bound by 2 CPUs, 8 for a fit; lower cluster\.train\.workers"):
        allocate_trials({"CPU": 2}, ClusterSettings(train={"workers": 8}), 4)
