"""The charts: curves that equal plain counting, names as they are, and the same text whenever the same values are drawn."""

import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from engine.report import figures
from engine.report.figures import comparison_svg, height, position, preview_svg, score_range, shown
from engine.report.preview import CURVE_THRESHOLDS, survivors
from engine.search.importance import Importance
from engine.select.histogram import Histogram
from engine.select.scores import probability
from engine.settings.search import Dimension
from tests.search.making import record
from tests.select.tables import random_pool

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def marks(svg: str, colour: str) -> list[tuple[float, float]]:
    """Where the dots of a colour stand, (x, y) with y downwards."""
    uses = ElementTree.fromstring(svg).iter(f"{SVG}use")
    return [(float(use.attrib["x"]), float(use.attrib["y"])) for use in uses if colour.lower() in use.get("style", "")]


def histogram(counts: list[int], score: float = 3) -> Histogram:
    best = Histogram(len(counts))
    best.update(np.repeat(np.arange(len(counts)), counts).astype(np.uint16), np.full(sum(counts), score, np.float16))
    return best


def test_curves_equal_plain_counting() -> None:
    pool = random_pool(600, 6, 1, seed=2, confidence=4.0)
    best = Histogram(6)
    best.update(pool.classes[:, 0].astype(np.uint16), pool.log_odds[:, 0])
    curves = survivors(best, CURVE_THRESHOLDS)
    p = probability(pool.log_odds[:, 0])
    assert (p > 0.99).any()
    for threshold, curve in zip(CURVE_THRESHOLDS, curves, strict=True):
        assert np.array_equal(curve, np.bincount(pool.classes[p > threshold, 0], minlength=6))


def test_the_axis_of_thresholds_can_be_inverted() -> None:
    places = figures._nines(CURVE_THRESHOLDS)
    assert (np.diff(places) > 0).all()
    assert figures._from_nines(places) == pytest.approx(CURVE_THRESHOLDS)


def test_the_preview_names_the_scarcest_classes_as_they_are() -> None:
    """Markup, formulas and leading underscores mean something to SVG and to matplotlib; in a name they are letters."""
    names = ["a", "$x^2$", "_hidden", "d", "<script>", "f & g", "line\nbreak"]
    svg = preview_svg(names, histogram([900, 400, 500, 600, 5, 450, 10]), per_class=100)
    found = texts(svg)
    assert {"<script>", "$x^2$", "_hidden", "f & g", "line break", "K = 100"} <= set(found)
    assert not {"a", "d"} & set(found)
    assert any("2,865 images" in text for text in found)
    assert texts(preview_svg(["only"], Histogram(1))).count("only") == 1


def test_an_arm_without_score_or_interval_has_its_line() -> None:
    arms = [("low", (0.5, 0.4, 0.6)), ("none", None), ("one state", (0.9, float("nan"), float("nan")))]
    svg = comparison_svg(arms, "score, %")
    assert {"low", "none", "one state", "not measured", "score, %"} <= set(texts(svg))
    (low, above), (high, below) = marks(svg, figures.BLUE)
    assert low < high
    assert above < below, "arms stand in their order"
    assert "not measured" in texts(comparison_svg([("none", None)], "score, %"))


def test_forty_arms_have_a_line_each_and_stand_apart() -> None:
    svg = comparison_svg([(f"arm {n}", (n / 100, n / 100 - 0.01, n / 100 + 0.01)) for n in range(40)], "score, %")
    heights = [y for _, y in marks(svg, figures.BLUE)]
    assert len(heights) == 40
    assert min(np.diff(heights)) > 12, "points: a line of text is nine high"


def test_the_same_values_give_the_same_text_and_figures_share_no_identifiers() -> None:
    """A page holds several: what one refers to by identifier must not be defined by another."""
    space = {"b": Dimension(choice=["p", "q"])}
    records = [record(1, n, 0.5 + n / 100, values={"b": "pq"[n % 2]}) for n in range(3)]
    drawn = [
        lambda: figures.settings_svg(space, records, records[-1]),
        lambda: figures.parallel_svg(space, records, records[-1]),
        lambda: figures.importance_svg([Importance("b", 0.5, 0.1, 3)]),
        lambda: preview_svg(["a", "b"], histogram([3, 5])),
        lambda: comparison_svg([("a", (0.5, 0.4, 0.6))], "score, %"),
    ]
    identifiers: set[str] = set()
    for draw in drawn:
        svg = draw()
        assert svg == draw()
        assert svg.startswith('<svg role="img" aria-label="')
        mine = {element.attrib["id"] for element in ElementTree.fromstring(svg).iter() if "id" in element.attrib}
        assert not mine & identifiers
        identifiers |= mine


def test_matplotlib_is_imported_when_something_is_drawn() -> None:
    """`--help` and workers need none of it."""
    code = "import sys, engine.report.figures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0


def test_places_on_an_axis() -> None:
    assert height(Dimension(uniform=(0, 2)), 0.5) == 0.25
    assert height(Dimension(choice=["a", "b", "c"]), "b") == 0.5
    assert height(Dimension(choice=["a"]), "elsewhere") == 0
    assert height(Dimension(loguniform=(1e-4, 1)), 1e-2) == pytest.approx(0.5)
    assert position(Dimension(uniform=(0, 2)), 0.5) == 0.5
    assert position(Dimension(grid=[8, 16]), 16) == 1
    assert score_range([record(1, 0, 0.5)])[0] < 0.5 < score_range([record(1, 0, 0.5)])[1]


def test_long_names_are_shortened_in_the_middle() -> None:
    assert shown("abcdefghij", 5) == "ab…ij"
    assert shown("abcde", 5) == "abcde"
    assert len(shown("x" * 100)) == figures.LONGEST
