"""The preview as a plot: how many images of each class survive every threshold, as an SVG that needs no library and no network."""

from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

from engine.select.histogram import Histogram
from engine.select.scores import cut

THRESHOLDS = np.concatenate([np.linspace(0, 0.9, 46), 1 - np.logspace(-1, -4, 46)[1:]])
"""Where the curves are drawn: evenly, then closer and closer to 1, where an over-confident teacher has its images."""
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 860, 420, 70, 40, 180, 50
NAMED = 5
GREY, BAND, INK = "#888888", "#9ecae1", "#08519c"
LINES = ("#d62728", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b")


def survivors(best: Histogram, thresholds: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Images of each class above each threshold, (T, C)."""
    return np.stack([best.above(cut(float(threshold))) for threshold in thresholds])


def preview_svg(names: Sequence[str], best: Histogram, per_class: int | None = None) -> str:
    """An SVG: the middle class, the band that holds 80 % of the classes, and by name those that the highest thresholds leave the
    least of. A dashed line stands at `per_class`."""
    counts = survivors(best, THRESHOLDS)
    top = max(int(counts.max(initial=1)), per_class or 1, 10)
    low, middle, high = np.quantile(counts, [0.1, 0.5, 0.9], axis=1)
    scarcest = np.lexsort((best.total, counts[len(THRESHOLDS) // 2]))[:NAMED]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15">images of each class above a threshold ({best.total.sum():,} images)</text>',
        *_axes(top),
        f'<path d="{_path(high, top)} L{_path(low, top, backwards=True)[1:]} Z" fill="{BAND}" opacity="0.6"/>',
        f'<path d="{_path(middle, top)}" fill="none" stroke="{INK}" stroke-width="2.5"/>',
    ]
    legend = [("middle class", INK), ("80 % of the classes", BAND)]
    for index, colour in zip(scarcest, LINES, strict=False):
        parts.append(f'<path d="{_path(counts[:, index], top)}" fill="none" stroke="{colour}" stroke-width="1.3"/>')
        legend.append((names[index], colour))
    if per_class is not None:
        at = _y(per_class, top)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}" stroke="black" stroke-dasharray="6 4"/>'
        )
        parts.append(f'<text x="{WIDTH - RIGHT - 6}" y="{at - 6}" text-anchor="end">K = {per_class:,}</text>')
    for place, (name, colour) in enumerate(legend):
        y = TOP + 20 + 18 * place
        parts.append(f'<rect x="{WIDTH - RIGHT + 14}" y="{y - 8}" width="14" height="8" fill="{colour}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 34}" y="{y}">{escape(name[:22])}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _axes(top: int) -> list[str]:
    """Lines and numbers: the threshold, and the images on a logarithmic scale."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    made = []
    for threshold in (0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.99, 0.999):
        x = _x(threshold)
        made.append(f'<line x1="{x}" x2="{x}" y1="{TOP}" y2="{bottom}" stroke="#dddddd"/>')
        made.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{threshold:g}</text>')
    for power in range(int(np.log10(top)) + 1):
        y = _y(10**power, top)
        made.append(f'<line x1="{LEFT}" x2="{right}" y1="{y}" y2="{y}" stroke="#dddddd"/>')
        made.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{10**power:,}</text>')
    made.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 10}" text-anchor="middle" fill="{GREY}">threshold</text>')
    return made


def _x(threshold: float) -> float:
    """0 to 0.9 take the left half, every further nine a sixth."""
    share = threshold / 1.8 if threshold <= 0.9 else 0.5 + (-np.log10(1 - threshold) - 1) / 6
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def _y(count: float, top: int) -> float:
    """Logarithmic from 1 upwards; 0 lies on the axis."""
    share = np.log10(max(count, 1)) / np.log10(top)
    return round(HEIGHT - BOTTOM - float(share) * (HEIGHT - BOTTOM - TOP), 1)


def _path(counts: npt.NDArray, top: int, backwards: bool = False) -> str:
    points = [f"{_x(float(t))},{_y(float(count), top)}" for t, count in zip(THRESHOLDS, counts, strict=True)]
    return "M" + " L".join(reversed(points) if backwards else points)
