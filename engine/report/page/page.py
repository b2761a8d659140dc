"""The page of a run: its sections in their order, each a value that a plain function made, or the problem in its place."""

import time
from dataclasses import dataclass

from engine.ground.steps import Store
from engine.report.page.attempt import Attempt, attempt
from engine.report.page.data import Data, data
from engine.report.page.generations import Generations, generations
from engine.report.page.graph import Graph, graph
from engine.report.page.lineage import Lineage, lineage
from engine.report.page.pictures import Pictures, pictures
from engine.report.page.pseudo_labels import SelectionPart, pseudo_labels
from engine.report.page.source import RunRecord, read_record
from engine.report.page.spending import Spending, spending
from engine.report.page.thumbnails import PictureBudget
from engine.report.page.verdict import Verdict, verdict


@dataclass(frozen=True)
class Page:
    """All that the template shows. `made`: when, in local time."""

    run: str
    store: str
    made: str
    verdict: Attempt[Verdict]
    generations: Attempt[Generations]
    pseudo_labels: Attempt[tuple[SelectionPart, ...]]
    pictures: Attempt[Pictures]
    data: Attempt[Data]
    spending: Attempt[Spending]
    lineage: Attempt[Lineage]
    graph: Attempt[Graph | None]


def make_page(store: Store, run: str, budget: PictureBudget | None = None) -> Page:
    """The page of a run, finished, unfinished or failed, from storage alone. Raises FileNotFoundError for a run without a step."""
    return page_of(read_record(store, run), budget or PictureBudget())


def page_of(record: RunRecord, budget: PictureBudget) -> Page:
    """The page of the records of a run."""
    labels = attempt(pseudo_labels, record)
    steps = attempt(lineage, record)
    return Page(
        record.name,
        record.store.uri,
        time.strftime("%Y-%m-%d %H:%M"),
        attempt(verdict, record),
        attempt(generations, record),
        labels,
        attempt(pictures, record, labels.value or (), budget),
        attempt(data, record),
        attempt(spending, record),
        steps,
        attempt(_graph, record, steps.value),
    )


def _graph(record: RunRecord, steps: Lineage | None) -> Graph | None:
    if steps is None:
        return None
    model = record.chosen.model if record.chosen is not None else None
    target = model.split("/")[-2] if model is not None else None
    return graph(steps.nodes, steps.edges, target)
