"""The figures of the page: each an SVG drawn for a narrow screen, in the page's own colours, with the table that it was drawn from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engine.metrics.calibration import Bin
from engine.metrics.score import Score
from engine.report.figures import BLACK, BLUE, DASHES, GREY, ORANGE, OTHERS, PALE, shown, svg_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.7
"""Inches: about the width of a telephone, so that text is not made smaller there."""
HEIGHT = 2.7
LINES = (BLUE, *OTHERS)
VARIABLES = {
    BLUE: "--blue",
    ORANGE: "--orange",
    GREY: "--axis",
    PALE: "--grid",
    BLACK: "--ink",
    "#009E73": "--green",
    "#CC79A7": "--pink",
    "#E69F00": "--amber",
    "#56B4E9": "--sky",
}
"""Colours of a figure as variables of the page's style sheet, which has others for a dark screen."""
NAMED_BARS = 20
MOST_ROWS = 40
"""Rows of a table behind a figure; longer ones are thinned evenly."""

Cell = str | int | float | None


@dataclass(frozen=True)
class Chart:
    """A figure: what it shows, what a reader who does not see it should know, the drawing, and its numbers."""

    title: str
    alt: str
    svg: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def score_chart(models: Sequence[tuple[str, Score]], images: str) -> Chart:
    """The score of each model as a dot with its interval."""
    kind = models[0][1].title
    best = max(models, key=lambda one: one[1].value)
    alt = f"{kind} of {len(models)} models on {images}; the highest is that of {best[0]}, {100 * best[1].value:.1f} %"

    def draw(axes: "Axes") -> None:
        for place, (_, score) in enumerate(models):
            if np.isfinite([score.low, score.high]).all():
                axes.plot([100 * score.low, 100 * score.high], [place, place], color=BLUE, linewidth=2)
            axes.plot([100 * score.value], [place], "o", color=BLUE, markersize=6)
        axes.set_ylim(len(models) - 0.5, -0.5)
        axes.set_yticks(range(len(models)), labels=[shown(name, 20) for name, _ in models])
        axes.margins(x=0.08)
        axes.grid(axis="x", color=PALE)
        axes.set_xlabel(f"{kind}, % (95 % interval)")

    rows = tuple((name, _percent(one.value), _percent(one.low), _percent(one.high), one.images) for name, one in models)
    return _chart(
        f"{kind} on {images}",
        alt,
        draw,
        ("model", "score, %", "low", "high", "images"),
        rows,
        0.9 + 0.27 * len(models),
    )


def reliability_chart(models: Sequence[tuple[str, list[Bin]]], images: str) -> Chart:
    """Share of right answers against confidence; on the diagonal confidence is what it says."""

    def draw(axes: "Axes") -> None:
        axes.plot([0, 100], [0, 100], color=GREY, linewidth=1, linestyle=":")
        for (name, bins), colour, mark in zip(models, LINES, "osD^v", strict=False):
            x, y = (
                [100 * one.confidence for one in bins],
                [100 * one.precision.value for one in bins],
            )
            axes.plot(x, y, color=colour, marker=mark, markersize=4, linewidth=1.5, label=shown(name, 20))
        axes.set_xlim(0, 101)
        axes.set_ylim(0, 102)
        axes.grid(color=PALE)
        axes.set_xlabel("confidence, %")
        axes.set_ylabel("right, %")
        _legend(axes, len(models))

    rows = tuple(
        (
            name,
            f"{100 * one.low:.0f}-{100 * one.high:.0f} %",
            one.count,
            _percent(one.confidence),
            _percent(one.precision.value),
        )
        for name, bins in models
        for one in bins
    )
    gaps = "; ".join(f"{name}: {_gap(bins)}" for name, bins in models)
    return _chart(
        f"Confidence against share right, {images}",
        f"Reliability diagram: {gaps}",
        draw,
        ("model", "confidence", "images", "mean confidence, %", "right, %"),
        rows,
    )


def curves_chart(curves: Sequence[tuple[str, npt.NDArray[np.float64]]]) -> Chart:
    """The loss of each fit, rows (step, loss) of shape (n, 2)."""

    def draw(axes: "Axes") -> None:
        for (name, points), colour, dashes in zip(curves, LINES, (*DASHES, "-"), strict=False):
            axes.plot(*points.T, color=colour, linestyle=dashes, linewidth=1.5, label=shown(name, 24))
        losses = np.concatenate([points[:, 1] for _, points in curves])
        if losses.min() > 0 and losses.max() / losses.min() > 20:
            axes.set_yscale("log")
            _plain_ticks(axes)
        axes.set_xlim(left=0)
        axes.grid(color=PALE)
        axes.set_xlabel("training step")
        axes.set_ylabel("loss")
        _legend(axes, len(curves))

    rows = tuple((name, int(step), round(float(loss), 5)) for name, points in curves for step, loss in thinned(points))
    ends = "; ".join(f"{name} from {points[0, 1]:.3g} to {points[-1, 1]:.3g}" for name, points in curves)
    return _chart(
        "Training loss", f"Training loss against the step: {ends}", draw, ("fit", "step", "loss"), thin_rows(rows)
    )


def confidence_chart(edges: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], cuts: Sequence[float]) -> Chart:
    """How many images have each confidence: `edges` (n + 1,), `counts` (n,), and the cut, or the lowest and highest of the classes' cuts."""
    low, high = min(cuts), max(cuts)
    above = int(counts[edges[:-1] >= low - 1e-9].sum())
    cut = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"

    def draw(axes: "Axes") -> None:
        axes.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=BLUE, linewidth=0.5, edgecolor="#ffffff")
        if low != high:
            axes.axvspan(low, high, color=ORANGE, alpha=0.2, linewidth=0)
        for one in {low, high}:
            axes.axvline(one, color=ORANGE, linewidth=2, linestyle="--")
        axes.set_xlim(float(edges[0]), 1)
        axes.set_ylim(bottom=0)
        if counts.max(initial=0) > 50 * max(1, int(np.median(counts))):
            axes.set_yscale("symlog", linthresh=1)
            _plain_ticks(axes)
        axes.grid(axis="y", color=PALE)
        axes.set_xlabel(f"confidence of the best class; dashed: the cut, {cut}")
        axes.set_ylabel("images")

    rows = tuple(
        (f"{first:.3g}-{last:.3g}", int(count)) for first, last, count in zip(edges, edges[1:], counts, strict=False)
    )
    alt = (
        f"Histogram of confidence over {int(counts.sum()):,} images; about {above:,} of them are above the cut of {cut}"
    )
    return _chart("Confidence and the cut", alt, draw, ("confidence", "images"), rows)


def precision_chart(bins: Sequence[Bin]) -> Chart:
    """Share of right pseudo-labels by confidence, where the truth is known."""
    total = sum(one.count for one in bins)
    right = sum(one.count * one.precision.value for one in bins) / max(1, total)

    def draw(axes: "Axes") -> None:
        places = range(len(bins))
        values = [100 * one.precision.value for one in bins]
        low = [100 * (one.precision.value - one.precision.low) for one in bins]
        high = [100 * (one.precision.high - one.precision.value) for one in bins]
        axes.bar(places, values, color=BLUE, width=0.7)
        axes.errorbar(places, values, yerr=[low, high], fmt="none", ecolor=BLACK, elinewidth=1, capsize=2)
        every = max(1, len(bins) // 6)
        axes.set_xticks(places[::every], labels=[f"{100 * one.low:.0f}-{100 * one.high:.0f}" for one in bins[::every]])
        axes.set_ylim(0, 105)
        axes.grid(axis="y", color=PALE)
        axes.set_xlabel("confidence, %")
        axes.set_ylabel("right, %")

    rows = tuple(
        (
            f"{100 * one.low:.0f}-{100 * one.high:.0f} %",
            one.count,
            _percent(one.precision.value),
            _percent(one.precision.low),
            _percent(one.precision.high),
        )
        for one in bins
    )
    alt = f"{100 * right:.1f} % of {total:,} pseudo-labels with known truth are right; by confidence in the table"
    head = ("confidence", "pseudo-labels", "right, %", "low", "high")
    return _chart("Share of right pseudo-labels by confidence", alt, draw, head, rows)


def balance_chart(
    names: Sequence[str], available: npt.NDArray[np.int64], kept: npt.NDArray[np.int64], quota: Sequence[int] | None
) -> Chart:
    """Images available and kept of each class (C,): bars by name for few classes, a curve over sorted classes for many."""
    order = np.lexsort((available, kept))
    few = len(names) <= NAMED_BARS

    def draw(axes: "Axes") -> None:
        places = np.arange(len(names))
        if few:
            axes.barh(places, available[order], color=PALE, edgecolor=GREY, linewidth=0.5, height=0.75)
            axes.barh(places, kept[order], color=BLUE, height=0.4)
            axes.set_yticks(places, labels=[shown(names[int(index)], 16) for index in order])
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.set_xlabel("images: kept (blue) of available (pale)")
            axes.grid(axis="x", color=PALE)
            return
        axes.plot(places, np.sort(available), color=GREY, linestyle="--", linewidth=1.5, label="available")
        axes.plot(places, np.sort(kept), color=BLUE, linewidth=2, label="kept")
        if quota is not None and len(set(quota)) == 1:
            axes.axhline(quota[0], color=ORANGE, linestyle=":", linewidth=1.5, label="quota")
        axes.set_yscale("symlog", linthresh=10)
        _plain_ticks(axes)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("classes, from the fewest images to the most")
        axes.set_ylabel("images")
        axes.grid(color=PALE)
        _legend(axes, 3)

    shown_order = order if few else order[np.linspace(0, len(order) - 1, min(len(order), MOST_ROWS)).astype(int)]
    rows = tuple((names[int(i)], int(available[i]), int(kept[i])) for i in shown_order)
    empty = int((kept == 0).sum())
    alt = f"Pseudo-labels per class: {int(kept.min()):,} to {int(kept.max()):,}; {empty} of {len(names)} classes have none"
    tall = 0.8 + 0.2 * len(names) if few else HEIGHT
    return _chart("Images of each class", alt, draw, ("class", "available", "kept"), rows, tall)


def share_chart(shares: Sequence[tuple[str, float]]) -> Chart:
    """Seconds of each kind of step, the longest first."""
    total = sum(seconds for _, seconds in shares) or 1.0

    def draw(axes: "Axes") -> None:
        places = range(len(shares))
        axes.barh(places, [100 * seconds / total for _, seconds in shares], color=BLUE, height=0.6)
        axes.set_yticks(places, labels=[shown(name, 18) for name, _ in shares])
        axes.set_ylim(len(shares) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.grid(axis="x", color=PALE)
        axes.set_xlabel("share of the time of all steps, %")

    rows = tuple((name, round(seconds, 1), _percent(seconds / total)) for name, seconds in shares)
    alt = f"Time by kind of step: {', '.join(f'{name} {seconds / total:.0%}' for name, seconds in shares[:3])}"
    return _chart("Time by kind of step", alt, draw, ("steps", "seconds", "%"), rows, 0.9 + 0.25 * len(shares))


def thinned(points: npt.NDArray[np.float64], most: int = 12) -> npt.NDArray[np.float64]:
    """At most `most` rows, evenly, the first and the last among them."""
    if len(points) <= most:
        return points
    return points[np.linspace(0, len(points) - 1, most).astype(int)]


def thin_rows(rows: Sequence[tuple[Cell, ...]], most: int = 4 * MOST_ROWS) -> tuple[tuple[Cell, ...], ...]:
    """At most `most` rows, evenly."""
    if len(rows) <= most:
        return tuple(rows)
    return tuple(rows[int(place)] for place in np.linspace(0, len(rows) - 1, most))


def themed(svg: str) -> str:
    """The drawing with the page's colours: none behind it, and variables that fall back to what was drawn."""
    text = svg.replace("fill: #ffffff", "fill: none").replace("stroke: #ffffff", "stroke: var(--paper)")
    for colour, name in VARIABLES.items():
        text = text.replace(f": {colour.lower()}", f": var({name}, {colour.lower()})")
    return text


def _chart(
    title: str, alt: str, draw: Any, head: tuple[str, ...], rows: Sequence[tuple[Cell, ...]], tall: float = HEIGHT
) -> Chart:
    def on_figure(figure: "Figure") -> None:
        draw(figure.add_subplot())

    return Chart(title, alt, svg_text(on_figure, (WIDTH, tall), alt), head, tuple(rows))


def _plain_ticks(axes: "Axes") -> None:
    """Ticks of a logarithmic axis as plain numbers: names are never read as formulas here, so powers would not be either."""
    from matplotlib import ticker

    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())


def _legend(axes: "Axes", entries: int) -> None:
    """A legend below the figure, labels set afterwards: matplotlib omits those that begin with an underscore."""
    handles = axes.get_lines()
    named = [(line, str(line.get_label())) for line in handles if not str(line.get_label()).startswith("_child")]
    if not named or entries < 1:
        return
    legend = axes.legend([line for line, _ in named], ["x"] * len(named), frameon=False, fontsize=8, loc="best")
    for text, (_, name) in zip(legend.get_texts(), named, strict=True):
        text.set_text(name)


def _gap(bins: Sequence[Bin]) -> str:
    total = sum(one.count for one in bins) or 1
    gap = sum(one.count * (one.confidence - one.precision.value) for one in bins) / total
    return f"{abs(100 * gap):.1f} points too {'confident' if gap > 0 else 'cautious'} on average"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
