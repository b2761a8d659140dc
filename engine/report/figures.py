"""Every chart of the engine, drawn with matplotlib as SVG text: it opens in any browser, offline, and can stand inside a page.

The same values give the same text: identifiers are hashed with a fixed salt, no date is written, and text stays text. Names are those of
users, so they are never read as formulas ($) and are escaped. matplotlib is imported when something is drawn, through its object interface:
there are no global figures.
"""

import re
import warnings
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engine.report.preview import CURVE_THRESHOLDS, survivors
from engine.search.importance import Importance
from engine.search.space import Space, to_unit
from engine.search.trials import TrialRecord
from engine.select.histogram import Histogram
from engine.settings.search import Dimension

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Draw = Callable[[Figure], None]

BLUE, ORANGE, GREY, PALE, BLACK = "#0072B2", "#D55E00", "#555555", "#E5E5E5", "#000000"
OTHERS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
"""Colours that colour-blind readers tell apart (Okabe, Ito: Color universal design, 2008), and dashes for those who print in grey."""

LONGEST = 28
"""Letters of a name that are shown; longer ones are shortened in the middle."""
NAMED_CLASSES = 5
TICKS = (0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.99, 0.999)
STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
}


def comparison_svg(arms: Sequence[tuple[str, Sequence[float] | None]], what: str) -> str:
    """A line for each arm: its score as a dot, in percent, with its interval; `what` names the score.

    An arm is its name and (value, low, high) as fractions, the bounds not finite where there is no interval, or None where nothing was measured.
    """

    def draw(figure: "Figure") -> None:
        axes = figure.add_subplot()
        for place, (_, score) in enumerate(arms):
            if score is None:
                continue
            value, low, high = (100 * one for one in score)
            if np.isfinite(low) and np.isfinite(high):
                axes.plot([low, high], [place, place], color=BLUE, linewidth=2, solid_capstyle="butt")
            axes.plot([value], [place], "o", color=BLUE, markersize=6)
        if all(score is None for _, score in arms):
            axes.set_xlim(0, 100)
        missing = [place for place, (_, score) in enumerate(arms) if score is None]
        for place in missing:
            axes.text(0.5, place, "not measured", transform=axes.get_yaxis_transform(), **CENTRED, color=GREY)
        axes.margins(x=0.05)
        axes.set_ylim(len(arms) - 0.5, -0.5)
        axes.set_yticks(range(len(arms)), labels=[shown(name) for name, _ in arms])
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=PALE)
        axes.set_xlabel(what)

    return svg_text(draw, (7.5, 0.9 + 0.28 * len(arms)), what)


def preview_svg(names: Sequence[str], best: Histogram, per_class: int | None = None) -> str:
    """How many images of each class survive every threshold: the middle class, the band that holds 80 % of the classes, and by name those that
    the highest thresholds leave the least of. A dashed line stands at `per_class`."""
    counts = survivors(best, CURVE_THRESHOLDS)
    low, middle, high = np.quantile(counts, [0.1, 0.5, 0.9], axis=1)
    scarcest = np.lexsort((best.total, counts[len(CURVE_THRESHOLDS) // 2]))[:NAMED_CLASSES]
    title = f"images of each class above a threshold ({best.total.sum():,} images)"

    def draw(figure: "Figure") -> None:
        axes = figure.add_subplot()
        band = axes.fill_between(CURVE_THRESHOLDS, low, high, color=BLUE, alpha=0.2, linewidth=0)
        (line,) = axes.plot(CURVE_THRESHOLDS, middle, color=BLUE, linewidth=2.5)
        legend = [(line, "middle class"), (band, "80 % of the classes")]
        for index, colour, dashes in zip(scarcest, OTHERS, DASHES, strict=False):
            (line,) = axes.plot(CURVE_THRESHOLDS, counts[:, index], color=colour, linestyle=dashes, linewidth=1.5)
            legend.append((line, names[index]))
        if per_class is not None:
            line = axes.axhline(per_class, color=BLACK, linestyle=(0, (6, 4)), linewidth=1)
            legend.append((line, f"K = {per_class:,}"))
        axes.set_xscale("function", functions=(_nines, _from_nines))
        axes.set_xlim(0, CURVE_THRESHOLDS[-1])
        axes.set_xticks(TICKS, labels=[f"{tick:g}" for tick in TICKS])
        top = max(int(counts.max(initial=1)), per_class or 1, 10)
        axes.set_yscale("symlog", linthresh=1, linscale=0.3)  # from 1 upwards logarithmic, and 0 has a place
        axes.set_ylim(0, 1.3 * top)
        powers = [0, *(10**power for power in range(int(np.log10(top)) + 1))]
        axes.set_yticks(powers, labels=[f"{power:,}" for power in powers])
        axes.minorticks_off()
        axes.grid(color=PALE)
        axes.set_xlabel("threshold")
        axes.set_title(title)
        _legend(figure, legend)

    return svg_text(draw, (9, 4.4), title)


def settings_svg(space: Space, records: Sequence[TrialRecord], winner: TrialRecord) -> str:
    """A panel for each setting of a search: the validation score of every trial against its value, with the 95 % interval."""
    columns = min(3, max(1, len(space)))
    lines = -(-len(space) // columns)
    others, best = (
        [record for record in records if record.reports and (record == winner) is is_best] for is_best in (False, True)
    )

    def draw(figure: "Figure") -> None:
        for number, (path, dimension) in enumerate(space.items()):
            axes = figure.add_subplot(lines, columns, number + 1)
            for colour, mark, size, group in ((BLUE, "o", 5, others), (ORANGE, "*", 9, best)):
                known = [record for record in group if path in record.trial.values]
                x = [position(dimension, record.trial.values[path]) for record in known]
                low, value, high = (
                    [100 * getattr(record.reports[-1], name) for record in known] for name in ("low", "value", "high")
                )
                axes.vlines(x, low, high, colors=colour, alpha=0.35)
                axes.plot(x, value, mark, color=colour, markersize=size)
            _value_axis(axes, dimension)
            axes.grid(color=PALE)
            axes.margins(y=0.1)
            axes.set_xlabel(shown(path, 40))
            if number % columns == 0:
                axes.set_ylabel("score, %")

    return svg_text(draw, (3.4 * columns, 2.6 * max(1, lines)), "score against each setting")


def parallel_svg(space: Space, records: Sequence[TrialRecord], winner: TrialRecord) -> str:
    """Parallel coordinates: a line for each trial through all its settings to its score; the better, the darker."""
    low, high = score_range(records)

    def draw(figure: "Figure") -> None:
        from matplotlib import colormaps

        axes = figure.add_subplot()
        colours = colormaps["cividis_r"]
        for record in sorted(records, key=lambda record: (record == winner, record.value or 0.0)):
            values = record.trial.values
            points = [(place, height(space[path], values[path])) for place, path in enumerate(space) if path in values]
            share = ((record.value or 0.0) - low) / (high - low)
            x, y = zip(*points, (len(space), share), strict=True)
            best = record == winner
            axes.plot(x, y, color=ORANGE if best else colours(0.2 + 0.8 * share), linewidth=3 if best else 1.2)
        ends = [*(labels(dimension) for dimension in space.values()), (f"{low:.1%}", f"{high:.1%}")]
        for place, (bottom, top) in enumerate(ends):
            axes.axvline(place, color=GREY, linewidth=1)
            axes.text(place, -0.04, shown(bottom, 14), horizontalalignment="center", verticalalignment="top")
            axes.text(place, 1.04, shown(top, 14), horizontalalignment="center", verticalalignment="bottom")
        axes.set_xlim(-0.5, len(space) + 0.5)
        axes.set_ylim(-0.02, 1.02)
        axes.spines[:].set_visible(False)
        names = [shown(path.rsplit(".", 1)[-1]) for path in space]
        axes.set_xticks(range(len(space) + 1), labels=[*names, "score"], rotation=25, horizontalalignment="right")
        axes.tick_params(axis="x", length=0, pad=14)
        axes.set_yticks([])

    return svg_text(draw, (1.2 + 1.3 * (len(space) + 1), 3.8), "all settings together")


def importance_svg(important: Sequence[Importance]) -> str:
    """Share of the differences between trials that each setting accounts for; the mark is what chance alone would give."""

    def draw(figure: "Figure") -> None:
        axes = figure.add_subplot()
        places = range(len(important))
        axes.barh(places, [100 * one.share for one in important], color=BLUE, height=0.6)
        for place, one in enumerate(important):
            axes.plot([100 * one.chance] * 2, [place - 0.42, place + 0.42], color=BLACK, linewidth=2)
            end = 100 * max(one.share, one.chance)
            axes.annotate(
                f"{one.share:.0%}", (end, place), (5, 0), textcoords="offset points", verticalalignment="center"
            )
        axes.set_ylim(len(important) - 0.5, -0.5)
        axes.set_xlim(0, 112)
        axes.set_xticks(range(0, 101, 20))
        axes.set_yticks(places, labels=[shown(one.path, 40) for one in important])
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("share of the differences between trials, %")

    return svg_text(draw, (7.5, 0.8 + 0.3 * len(important)), "which settings mattered")


CENTRED: dict[str, Any] = {"horizontalalignment": "center", "verticalalignment": "center"}


def position(dimension: Dimension, value: Any) -> float:
    """Where a value stands on the axis of its setting: numbers as they are, those of a list by their place in it (the first for an unknown one)."""
    if dimension.values is None:
        return float(value)
    return float(dimension.values.index(value)) if value in dimension.values else 0.0


def height(dimension: Dimension, value: Any) -> float:
    """Where a value stands between the ends of its setting, 0 to 1; a number outside the range stands at the nearer end."""
    if dimension.values is None:
        return to_unit(dimension, value)
    return position(dimension, value) / max(1, len(dimension.values) - 1)


def labels(dimension: Dimension) -> tuple[str, str]:
    """The two ends of a setting's values."""
    ends = dimension.values or dimension.uniform or dimension.loguniform or dimension.integer
    assert ends is not None, "a dimension is a list or a range"
    return str(ends[0]), str(ends[-1])


def score_range(records: Sequence[TrialRecord]) -> tuple[float, float]:
    """The axis of accuracies: from the lowest to the highest seen, never empty."""
    values = [record.value for record in records if record.value is not None] or [0.0]
    low, high = min(values), max(values)
    return (low, high) if high - low > 1e-3 else (max(0.0, low - 5e-4), high + 5e-4)


def shown(name: str, longest: int = LONGEST) -> str:
    """A name as one short line: what cannot be printed is a space, and a long one is shortened in the middle."""
    line = "".join(letter if letter.isprintable() else " " for letter in name)
    half = (longest - 1) // 2
    return line if len(line) <= longest else f"{line[: longest - 1 - half]}…{line[len(line) - half :]}"


def _value_axis(axes: "Axes", dimension: Dimension) -> None:
    """The horizontal axis of a setting: its whole range, also where no trial went."""
    from matplotlib import ticker

    if dimension.values is not None:
        axes.set_xlim(-0.5, len(dimension.values) - 0.5)
        names = [shown(str(value), 12) for value in dimension.values]
        turned: dict[str, Any] = {"rotation": 30, "horizontalalignment": "right"} if sum(map(len, names)) > 24 else {}
        axes.set_xticks(range(len(names)), labels=names, **turned)
        return
    span = dimension.uniform or dimension.loguniform or dimension.integer
    assert span is not None, "a dimension is a list or a range"
    low, high = span
    if dimension.loguniform is not None:
        axes.set_xscale("log")
        subs = (1.0,) if high / low >= 100 else (1.0, 2.0, 5.0)
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=subs, numticks=6))
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
        axes.set_xlim(low / (high / low) ** 0.05, high * (high / low) ** 0.05)
        return
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=dimension.integer is not None))
    axes.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def _legend(figure: "Figure", entries: list[tuple[Any, str]]) -> None:
    """A legend beside the axes. Labels are set afterwards: matplotlib leaves out those that begin with an underscore."""
    legend = figure.legend(
        [line for line, _ in entries],
        [str(place) for place in range(len(entries))],
        loc="outside right upper",
        frameon=False,
    )
    for text, (_, name) in zip(legend.get_texts(), entries, strict=True):
        text.set_text(shown(name))


def _nines(threshold: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """0 to 0.9 take the first half of the axis, every further nine a sixth."""
    t = np.asarray(threshold, np.float64)
    rest = np.maximum(1 - t, 1e-9)
    return np.where(t <= 0.9, t / 1.8, 0.5 + (-np.log10(rest) - 1) / 6)


def _from_nines(place: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """The threshold at a place: the inverse of `_nines`."""
    p = np.asarray(place, np.float64)
    return np.where(p <= 0.5, p * 1.8, 1 - 10.0 ** -(6 * (p - 0.5) + 1))


def svg_text(draw: "Draw", inches: tuple[float, float], title: str) -> str:
    """What `draw` puts on a figure, as one `<svg>` element; `title` is what a screen reader reads."""
    text = render(draw, inches, "svg", salt=title).decode()
    # nothing refers to groups, whose names would come twice in a page of several figures
    text = re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :])
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)


def render(draw: "Draw", inches: tuple[float, float], kind: str, salt: str) -> bytes:
    """The file of a figure in a format of matplotlib's. Identifiers are hashed with `salt`, so that figures of one page do not share any."""
    import io

    import matplotlib
    from matplotlib.figure import Figure

    file = io.BytesIO()
    metadata = {"Date": None, "Creator": None, "Format": None, "Type": None} if kind == "svg" else {}
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": salt}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's own font has it
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure)
        figure.savefig(file, format=kind, metadata=metadata, facecolor="white")
    return file.getvalue()
