"""What a search's result says: importance and savings by known answers, tables and plots by what must stand in them."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Store
from engine.report import figures, search_page, search_table
from engine.report.console import Console
from engine.search.importance import correlation_ratio, importances, rank_correlation
from engine.search.savings import Saving, Used, savings, steps_used
from engine.search.search import SearchResult
from engine.search.trials import run_name, settings_of
from engine.settings.cluster import ClusterSettings
from engine.settings.search import Dimension
from tests.search.making import record, searched

SPACE = {"a.x": Dimension(uniform=(0, 1)), "b": Dimension(choice=["p", "q"]), "c": Dimension(loguniform=(1e-3, 1))}


def test_rank_correlation_and_ratio_have_known_answers() -> None:
    x = np.array([1.0, 2, 3, 4])
    assert rank_correlation(x, np.exp(x)) == pytest.approx(1)
    assert rank_correlation(x, -(x**3)) == pytest.approx(-1)
    assert rank_correlation(x, np.array([2.0, 1, 4, 3])) == pytest.approx(0.6)
    assert rank_correlation(np.array([1.0, 1, 2, 2]), np.array([1.0, 1, 2, 2])) == pytest.approx(1)
    assert rank_correlation(x, np.ones(4)) == 0
    assert correlation_ratio(["p", "p", "q", "q"], np.array([1.0, 1, 3, 3])) == pytest.approx(1)
    assert correlation_ratio(["p", "q", "p", "q"], np.array([1.0, 1, 3, 3])) == 0
    assert correlation_ratio(["p", "p"], np.ones(2)) == 0


def test_the_setting_that_matters_is_found_and_a_generations_gain_is_not_taken_for_it() -> None:
    rng = np.random.default_rng(0)
    records = []
    for cohort in (1, 2):
        for number in range(40):
            x = float(rng.random())
            values = {"a.x": x, "b": "pq"[number % 2], "c": float(0.1 * cohort + 1e-3 * rng.random())}
            records.append(record(cohort, number, 0.5 + 0.2 * cohort + 0.1 * x, values=values))
    found = {one.path: one for one in importances(SPACE, records)}
    assert next(iter(found)) == "a.x"
    assert found["a.x"].share > 0.99
    assert found["b"].share < 0.15
    assert found["c"].share < 0.15, "c differs between generations only, and so does the accuracy"
    assert found["c"].chance == pytest.approx(1 / 39)
    assert importances(SPACE, records[:2]) == []


def test_savings_count_each_step_once() -> None:
    used = [
        Used("1", "fit", "f", 10),
        Used("2", "fit", "f", 10),
        Used("2", "fit", "g", 5),
        Used("1", "predict", "p", 40),
    ]
    rows = savings([*used, Used("2", "predict", "p", 40)])
    assert rows == [Saving("predict", 2, 1, 80, 40), Saving("fit", 3, 2, 25, 15)]
    assert "saved 50 of 105 seconds" in search_table.saved_sentence(rows)
    assert "0 of 0" in search_table.saved_sentence([])


def test_steps_are_read_from_the_store_and_unfinished_ones_are_left_out(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    records = [record(1, 0, 0.5), record(1, 1, 0.6), record(1, 2)]
    for one in records[:2]:
        run = Run(store, run_name("s", one.trial), ClusterSettings())
        run.find_or_run_step("predict", StepRecord("predict", 1), lambda step: step.commit([], {}, 0.0))
        with pytest.raises(KeyboardInterrupt):
            run.find_or_run_step(
                "fit", StepRecord("fit", 1, {"n": one.trial.number}), lambda _: (_ for _ in ()).throw(KeyboardInterrupt)
            )
    used = steps_used(store, "s", records)
    assert [(use.trial, use.verb) for use in used] == [("1-000", "predict"), ("1-001", "predict")]
    assert savings(used)[0].made == 1


def found() -> SearchResult:
    values = {"select.threshold": 0.5, "fits.student.noise.pseudo.aa_magnitude": 5}
    records = [
        record(1, n, 0.7 + n / 100, before=(), values={**values, "select.threshold": 0.1 * n}) for n in range(1, 6)
    ]
    records += [record(1, 6, state="failed", values={}, before=())]
    records += [record(2, 0, 0.74, 0.9, before=(values,), values=values, parent=5)]
    return SearchResult(records, records[-1], settings_of(searched().base(), records[-1].trial, "s-best"))


def test_the_tables_show_trials_schedule_and_savings() -> None:
    result = found()
    important = importances(searched().search.space, result.records)
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    search_table.show(result, important, [Saving("fit", 3, 2, 25, 15)], console)
    text = console.export_text()
    for told in (
        "2-000 *",
        "1-005",
        "failed",
        "schedule of the best",
        "74.00  90.00",
        "select.threshold",
        "saved 10 of 25",
    ):
        assert told in text
    plain = json.loads(json.dumps(search_table.plain(result, important, [])))
    assert plain["winner"] == "2-000"
    assert len(plain["schedule"]) == 2


def test_the_page_is_well_formed_and_has_every_trial_and_setting() -> None:
    result = found()
    space = searched().search.space
    page = search_page.page("Search <s>", result, space, importances(space, result.records), [], "a: <b>")
    assert "Search &lt;s&gt;" in page
    assert "a: &lt;b&gt;" in page
    assert page.index("2-000") < page.index("1-005") < page.index("1-006"), "the best first, those without a score last"
    assert "default-src 'none'" in page
    pictures = page.split("<svg")[1:]
    scatters, parallel, bars = (
        ElementTree.fromstring("<svg" + picture.split("</svg>")[0] + "</svg>") for picture in pictures
    )
    svg = "{http://www.w3.org/2000/svg}"
    assert set(space) <= {text.text for text in scatters.iter(f"{svg}text")}
    assert {"select.threshold", "100%"} <= {text.text for text in bars.iter(f"{svg}text")}
    known = [one for one in result.records if one.value is not None]
    dots = {
        colour: [float(use.get("y", 0)) for use in scatters.iter(f"{svg}use") if colour.lower() in use.get("style", "")]
        for colour in (figures.BLUE, figures.ORANGE)
    }
    drawn = sum(path in one.trial.values for path in space for one in known)
    assert len(dots[figures.BLUE]) + len(dots[figures.ORANGE]) == drawn
    assert len(dots[figures.ORANGE]) == len(space), "the best is marked in every panel"
    assert max(dots[figures.ORANGE]) < min(dots[figures.BLUE]), "a better trial stands higher"
    lines = [
        path.get("style", "") for path in parallel.iter(f"{svg}path") if "stroke-width: 3" in path.get("style", "")
    ]
    assert len(lines) == 1
    assert figures.ORANGE.lower() in lines[0]
