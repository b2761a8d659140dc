"""Plots of a search as SVG, and the page that holds them: no library, no script, readable in any browser and offline."""

import html
from collections.abc import Sequence
from typing import Any

from engine.report.search_table import saved_sentence
from engine.search.importance import Importance
from engine.search.savings import Saving
from engine.search.search import Found
from engine.search.space import Space, to_unit
from engine.search.trials import Record
from engine.search_settings import Dimension

WIDE, HIGH, MARGIN = 360, 220, 44
LOW_COLOUR, HIGH_COLOUR, BEST = (203, 213, 225), (37, 99, 235), "#dc2626"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1e293b; background: #fff }
svg { font: 11px system-ui, sans-serif; margin: 0 1rem 1rem 0 } table { border-collapse: collapse }
td, th { padding: .2rem .8rem .2rem 0; text-align: left } th { border-bottom: 1px solid #94a3b8 } pre { background: #f1f5f9; padding: 1rem }
"""


def page(title: str, found: Found, space: Space, important: list[Importance], saved: list[Saving], yaml: str) -> str:
    """The whole report as one HTML file; `yaml` are the winner's settings."""
    known = [record for record in found.records if record.value is not None]
    plots = "".join(scatter(path, space[path], known, found.winner) for path in space)
    rows = "".join(
        f"<tr><td>{html.escape(row.verb)}</td><td>{row.wanted}</td><td>{row.made}</td>"
        f"<td>{row.seconds_wanted:.0f}</td><td>{row.seconds_made:.0f}</td></tr>"
        for row in saved
    )
    winner = found.winner
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>
<h1>{html.escape(title)}</h1>
<p>{len(found.records)} trials; best: trial {winner.trial.name} with {winner.value or 0:.2%} on validation images (red).
Each mark is a trial; a search that looks at the same validation images often flatters its winner: its test result is the one to quote.</p>
<h2>Accuracy against each setting</h2>{plots}
<h2>All settings together</h2>{parallel(space, known, winner)}
<h2>Which settings mattered</h2>{bars(important)}
<h2>Steps shared</h2><table><tr><th>verb</th><th>wanted</th><th>made</th><th>seconds alone</th><th>seconds shared</th></tr>{rows}</table>
<p>{html.escape(saved_sentence(saved))}</p>
<h2>Settings of the best</h2><pre>{html.escape(yaml)}</pre></html>
"""


def scatter(path: str, dimension: Dimension, records: Sequence[Record], winner: Record) -> str:
    """Validation accuracy of every trial against one of its settings, with the 95 % interval."""
    low, high = accuracy_range(records)
    marks = []
    for record in records:
        if path not in record.trial.values:
            continue
        x = MARGIN + (WIDE - 2 * MARGIN) * place(dimension, record.trial.values[path])
        report = record.reports[-1]
        y, top, bottom = (_y(value, low, high) for value in (report.accuracy, report.high, report.low))
        colour = BEST if record == winner else "#2563eb"
        told = html.escape(f"trial {record.trial.name}: {record.trial.values[path]}, {report.accuracy:.2%}")
        marks.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" stroke="{colour}" stroke-opacity=".25"/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>{told}</title></circle>'
        )
    left, right = labels(dimension)
    axis = (
        f'<path d="M{MARGIN} {MARGIN / 2} V{HIGH - MARGIN} H{WIDE - MARGIN / 2}" fill="none" stroke="#94a3b8"/>'
        f'<text x="{MARGIN}" y="{HIGH - MARGIN + 16}">{left}</text>'
        f'<text x="{WIDE - MARGIN}" y="{HIGH - MARGIN + 16}" text-anchor="end">{right}</text>'
        f'<text x="{WIDE / 2}" y="{HIGH - 10}" text-anchor="middle">{html.escape(path)}</text>'
        f'<text x="{MARGIN - 6}" y="{_y(high, low, high) + 4:.0f}" text-anchor="end">{high:.1%}</text>'
        f'<text x="{MARGIN - 6}" y="{_y(low, low, high) + 4:.0f}" text-anchor="end">{low:.1%}</text>'
    )
    return f'<svg width="{WIDE}" height="{HIGH}" role="img" aria-label="accuracy against {html.escape(path)}">{axis}{"".join(marks)}</svg>'


def parallel(space: Space, records: Sequence[Record], winner: Record) -> str:
    """Parallel coordinates: a line a trial through all its settings to its accuracy; the better, the darker."""
    low, high = accuracy_range(records)
    axes = [*space, "accuracy"]
    step = 150
    wide, high_svg = MARGIN * 2 + step * (len(axes) - 1), HIGH + 30
    at = {axis: MARGIN * 1.5 + index * step for index, axis in enumerate(axes)}
    lines = []
    for record in sorted(records, key=lambda record: (record == winner, record.value or 0.0)):
        shares = {p: place(space[p], record.trial.values[p]) for p in space if p in record.trial.values}
        shares["accuracy"] = ((record.value or 0.0) - low) / (high - low)
        points = " ".join(f"{at[axis]:.1f},{_height(shares[axis]):.1f}" for axis in axes if axis in shares)
        colour = BEST if record == winner else mixed(shares["accuracy"])
        width = 3 if record == winner else 1.5
        told = html.escape(f"trial {record.trial.name}: {record.value or 0:.2%}")
        lines.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"><title>{told}</title></polyline>'
        )
    columns = []
    for index, axis in enumerate(axes):
        x = at[axis]
        left, right = (f"{low:.1%}", f"{high:.1%}") if axis == "accuracy" else labels(space[axis])
        name = html.escape(axis.rsplit(".", 1)[-1])
        columns.append(
            f'<line x1="{x}" x2="{x}" y1="{_height(1)}" y2="{_height(0)}" stroke="#475569"/>'
            f'<text x="{x}" y="{_height(1) - 8}" text-anchor="middle">{right}</text>'
            f'<text x="{x}" y="{_height(0) + 16}" text-anchor="middle">{left}</text>'
            f'<text x="{x}" y="{_height(0) + 34 + 12 * (index % 2)}" text-anchor="middle" font-weight="600">{name}</text>'
        )
    return f'<svg width="{wide}" height="{high_svg}" role="img" aria-label="parallel coordinates">{"".join(lines)}{"".join(columns)}</svg>'


def bars(important: list[Importance]) -> str:
    """Share of the differences that each setting accounts for; the mark is what chance alone would give."""
    if not important:
        return "<p>too few trials to tell</p>"
    rows = []
    for index, one in enumerate(important):
        y = 24 * index + 4
        rows.append(
            f'<text x="250" y="{y + 13}" text-anchor="end">{html.escape(one.path)}</text>'
            f'<rect x="260" y="{y}" width="{300 * one.share:.1f}" height="16" fill="#2563eb"/>'
            f'<line x1="{260 + 300 * one.chance:.1f}" x2="{260 + 300 * one.chance:.1f}" y1="{y - 2}" y2="{y + 18}" stroke="#0f172a"/>'
            f'<text x="{266 + 300 * max(one.share, one.chance):.1f}" y="{y + 13}">{one.share:.0%}</text>'
        )
    note = "<p>Bars: share of the differences between trials; lines: what a setting without effect would show on average.</p>"
    return f'<svg width="640" height="{24 * len(important) + 8}" role="img" aria-label="importance">{"".join(rows)}</svg>{note}'


def place(dimension: Dimension, value: Any) -> float:
    """Where a value stands on its axis, 0 to 1; a value outside the space stands at the nearer end."""
    if dimension.values is None:
        return to_unit(dimension, value)
    at = dimension.values.index(value) if value in dimension.values else 0
    return at / max(1, len(dimension.values) - 1)


def labels(dimension: Dimension) -> tuple[str, str]:
    """What stands at the two ends of an axis."""
    ends = dimension.values or dimension.uniform or dimension.loguniform or dimension.integer
    assert ends is not None, "a dimension is a list or a range"
    return html.escape(str(ends[0])), html.escape(str(ends[-1]))


def accuracy_range(records: Sequence[Record]) -> tuple[float, float]:
    """The axis of accuracies: from the lowest to the highest seen, never empty."""
    values = [record.value for record in records if record.value is not None] or [0.0]
    low, high = min(values), max(values)
    return (low, high) if high - low > 1e-3 else (max(0.0, low - 5e-4), high + 5e-4)


def mixed(share: float) -> str:
    """A colour between those of the worst and the best trial."""
    return "#" + "".join(
        f"{round(a + (b - a) * min(1.0, max(0.0, share))):02x}" for a, b in zip(LOW_COLOUR, HIGH_COLOUR, strict=True)
    )


def _y(value: float, low: float, high: float) -> float:
    share = min(1.05, max(-0.05, (value - low) / (high - low)))  # intervals may leave the axis a little
    return HIGH - MARGIN - share * (HIGH - 1.5 * MARGIN)


def _height(share: float) -> float:
    return HIGH - MARGIN - share * (HIGH - 2 * MARGIN)
