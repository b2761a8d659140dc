"""The preview's plot: curves that equal plain counting, and an SVG that a browser reads."""

from xml.etree import ElementTree

import numpy as np

from engine.report.curves import THRESHOLDS, preview_svg, survivors
from engine.select.histogram import Histogram
from engine.select.scores import probability
from tests.select.tables import random_pool


def test_curves_equal_plain_counting() -> None:
    pool = random_pool(600, 6, 1, seed=2, confidence=4.0)
    best = Histogram(6)
    best.update(pool.classes[:, 0].astype(np.uint16), pool.log_odds[:, 0])
    curves = survivors(best, THRESHOLDS)
    p = probability(pool.log_odds[:, 0])
    assert (p > 0.99).any()
    for threshold, curve in zip(THRESHOLDS, curves, strict=True):
        assert np.array_equal(curve, np.bincount(pool.classes[p > threshold, 0], minlength=6))


def test_the_plot_names_the_scarcest_classes_and_escapes_them() -> None:
    best = Histogram(7)
    best.update(
        np.repeat(np.arange(7), [900, 800, 700, 600, 5, 500, 400]).astype(np.uint16), np.full(3905, 3, np.float16)
    )
    names = ["a", "b", "c", "d", "<script>", "f", "g"]
    root = ElementTree.fromstring(preview_svg(names, best, per_class=100))
    texts = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "<script>" in texts
    assert "a" not in texts
    assert "K = 100" in texts
    assert any("3,905 images" in text for text in texts)
    assert ElementTree.fromstring(preview_svg(["only"], Histogram(1))) is not None
