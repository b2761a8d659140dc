"""What thresholds and quotas would give, as a table: from the histogram alone, before anything is selected."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from rich.table import Table

from engine.select.histogram import Histogram
from engine.select.preview import Preview, preview
from engine.select.scores import cut_for

CURVE_THRESHOLDS = np.concatenate([np.linspace(0, 0.9, 46), 1 - np.logspace(-1, -4, 46)[1:]])
"""Where the curves are drawn: evenly, then closer and closer to 1, where an over-confident teacher has its images."""


def survivors(best: Histogram, thresholds: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Images of each class above each threshold, (T, C)."""
    return np.stack([best.above(cut_for(float(threshold))) for threshold in thresholds])


def preview_thresholds(best: Histogram, thresholds: Sequence[float], per_class: int | None) -> list[Preview]:
    """The outcome at each threshold. Raises ValueError for a threshold that is no probability."""
    if wrong := [t for t in thresholds if not 0 <= t < 1]:
        raise ValueError(f"thresholds are probabilities, 0 <= t < 1: {', '.join(map(str, wrong))} is not")
    return [preview(best, threshold, per_class) for threshold in thresholds]


def preview_table(names: Sequence[str], total: np.ndarray, outcomes: Sequence[Preview], limit: int) -> Table:
    """A row a class, those with the least images at the last threshold first, `limit` of them; then a row for all.

    `total` (C,): images of which the class is the best. A cell is how many survive the threshold; with a quota how many it keeps, and the
    worst probability kept.
    """
    table = Table(title="images of each class above a threshold", title_justify="left")
    table.add_column("class", overflow="fold")
    table.add_column("best class of", justify="right")
    for outcome in outcomes:
        quota = f", K={outcome.per_class}" if outcome.per_class is not None else ""
        table.add_column(f"> {outcome.threshold:g}{quota}", justify="right")
    scarcest = np.lexsort((total, outcomes[-1].available))
    for index in scarcest[:limit]:
        table.add_row(names[index], f"{total[index]:,}", *(_cell(outcome, index) for outcome in outcomes))
    if len(scarcest) > limit:
        table.add_row(f"… {len(scarcest) - limit} more", "", *("" for _ in outcomes))
    table.add_section()
    table.add_row("all", f"{total.sum():,}", *(_sum(outcome) for outcome in outcomes))
    table.add_row("share kept", "", *(f"{outcome.kept.sum() / max(1, total.sum()):.1%}" for outcome in outcomes))
    table.add_row("classes without", "", *(str(int((outcome.kept == 0).sum())) for outcome in outcomes))
    if outcomes[0].per_class is not None:
        short = [int((outcome.available < (outcome.per_class or 0)).sum()) for outcome in outcomes]
        table.add_row("classes below K", "", *map(str, short))
    return table


def _cell(outcome: Preview, index: int) -> str:
    available, kept = int(outcome.available[index]), int(outcome.kept[index])
    if outcome.per_class is None or not kept:
        return f"{available:,}"
    return f"{kept:,} of {available:,}, down to {outcome.lowest[index]:.4g}"


def _sum(outcome: Preview) -> str:
    kept = f"{outcome.kept.sum():,} of " if outcome.per_class is not None else ""
    return f"{kept}{outcome.available.sum():,}"
