"""The steps of a run as a drawing: one line per step in the order of work, an arc to each from every step that it read."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.report.page.lineage import Node

ROW = 22
LEFT = 84
WIDTH = 400
REACH = 88
"""Pixels: height of a line, where titles begin, width of the drawing, and how far an arc may go to the left."""


@dataclass(frozen=True)
class Line:
    """A step in the drawing. `is_ancestor`: whether the model to use was made from it."""

    node: Node
    y: int
    is_ancestor: bool


@dataclass(frozen=True)
class Arc:
    """A path of the drawing, as SVG has it."""

    path: str
    is_ancestor: bool


@dataclass(frozen=True)
class Graph:
    """The drawing, in pixels."""

    width: int
    height: int
    left: int
    lines: tuple[Line, ...]
    arcs: tuple[Arc, ...]


def graph(nodes: Sequence[Node], edges: Sequence[tuple[int, int]], target: str | None) -> Graph:
    """The drawing of the steps. `target`: the step of the model to use; what it was made from is drawn in colour."""
    above = ancestors(edges, [place for place, node in enumerate(nodes) if node.step == target])
    lines = tuple(Line(node, ROW * place + ROW // 2, place in above) for place, node in enumerate(nodes))
    arcs = tuple(Arc(_arc(lines[a].y, lines[b].y), a in above and b in above) for a, b in edges)
    ordered = tuple(sorted(arcs, key=lambda arc: arc.is_ancestor))
    return Graph(WIDTH, ROW * len(nodes), LEFT, lines, ordered)


def ancestors(edges: Sequence[tuple[int, int]], places: Sequence[int]) -> set[int]:
    """The steps at `places` and all that they were made from."""
    found, open_ = set(places), list(places)
    while open_:
        place = open_.pop()
        new = {a for a, b in edges if b == place} - found
        found |= new
        open_ += new
    return found


def _arc(top: int, bottom: int) -> str:
    bulge = min(REACH, 14 + abs(bottom - top) // 3)
    x = LEFT - 10
    return f"M{x} {top}C{x - bulge} {top} {x - bulge} {bottom} {x} {bottom}"
