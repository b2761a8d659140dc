"""Several recipes side by side: one table with intervals, cost and pseudo-label quality, and its picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from engine.ground.record import differences
from engine.metrics.interval import Interval, mean_over_seeds
from engine.metrics.score import Score
from engine.report.cost import Cost
from engine.report.figures import comparison_svg
from engine.report.page.render import render
from engine.settings.block import get_value
from engine.settings.run import RunSettings
from engine.tasks.task import Measure

SAME = ("data", "models.teacher")
"""Settings in which all arms have to agree for the comparison to mean anything."""


@dataclass(frozen=True)
class Scored:
    """A model's score on one labelled set, and the rows of the task's measure that it stands on."""

    score: Score
    rows: pa.Table
    measure: Measure


@dataclass(frozen=True)
class Outcome:
    """One arm in one random state: the metrics of the model that its run recommends, what the run cost, and how it did on each image."""

    row: dict[str, Any]
    cost: Cost
    scored: dict[str, Scored]
    """By collection: "validation", "test"."""


@dataclass(frozen=True)
class Arm:
    """A recipe's config and its outcome in every random state."""

    name: str
    recipe: str
    outcomes: list[Outcome]


def refuse_unlike(arms: Mapping[str, RunSettings]) -> None:
    """Raise ValueError with what differs unless all arms have the same data and network; a student must be the teacher's network, too."""
    names = list(arms)
    for name, settings in arms.items():
        for block in SAME:
            ours, theirs = (get_value(arms[one].model_dump(mode="json"), block) for one in (names[0], name))
            if changed := differences(ours, theirs, block):
                raise ValueError(
                    f"{name} cannot be compared with {names[0]}: {'; '.join(changed)}; give all arms the same with --set"
                )
        student = settings.models.student
        if student is not None and student.architecture != settings.models.teacher.architecture:
            raise ValueError(f"{name}: its student is {student.model}, another network: leave out models.student")


def score_of(outcomes: Sequence[Outcome], on: str) -> Interval | None:
    """Over random states with Student's t interval where there are several, else of the images; None where it was not measured."""
    scores = [outcome.scored[on].score for outcome in outcomes if on in outcome.scored]
    if not scores:
        return None
    return mean_over_seeds([score.value for score in scores]) if len(scores) > 1 else scores[0].interval


def difference_to(first: Sequence[Outcome], outcomes: Sequence[Outcome], on: str) -> Interval | None:
    """Score minus that of the first arm, the same images and random states paired."""
    pairs = [
        (a.scored[on], b.scored[on]) for a, b in zip(first, outcomes, strict=False) if on in a.scored and on in b.scored
    ]
    if not pairs:
        return None
    if len(pairs) == 1:
        (a, b) = pairs[0]
        return a.measure.paired(a.rows, b.rows).difference
    return mean_over_seeds([b.score.value - a.score.value for a, b in pairs])


def rows(arms: Sequence[Arm], budget: int | None = None) -> list[dict[str, Any]]:
    """The table as plain values, ready for JSON; the first arm is the one that the others are compared with."""
    made = []
    for arm in arms:
        trained = int(np.mean([outcome.cost.trained for outcome in arm.outcomes]))
        quality = [o.row["pseudo_correct"] for o in arm.outcomes if o.row["pseudo_correct"] is not None]
        made.append(
            {
                "arm": arm.name,
                "recipe": arm.recipe,
                "states": len(arm.outcomes),
                **{on: _plain(score_of(arm.outcomes, on)) for on in ("validation", "test")},
                "difference": None if arm is arms[0] else _plain(_difference(arms[0], arm)),
                "trained": trained,
                "labelled": int(np.mean([outcome.cost.labelled for outcome in arm.outcomes])),
                "over_budget": budget is not None and trained > 1.01 * budget,
                "pseudo_labels": arm.outcomes[0].row["pseudo_labels"],
                "pseudo_correct": float(np.mean(quality)) if quality else None,
            }
        )
    return made


def _difference(first: Arm, arm: Arm) -> Interval | None:
    tested = difference_to(first.outcomes, arm.outcomes, "test")
    return tested if tested is not None else difference_to(first.outcomes, arm.outcomes, "validation")


def _plain(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.value, interval.low, interval.high]


def markdown(table: Sequence[dict[str, Any]]) -> str:
    """The table in Markdown: scores in % with 95 % intervals."""
    lines = [
        "| arm | states | validation | test | paired difference to the first | images trained on | labelled | pseudo-labels | right |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in table:
        over = " (over budget)" if row["over_budget"] else ""
        kept, right = row["pseudo_labels"], row["pseudo_correct"]
        cells = [
            row["arm"],
            str(row["states"]),
            _percent(row["validation"]),
            _percent(row["test"]),
            _percent(row["difference"], "+"),
            f"{row['trained']:,}{over}",
            f"{row['labelled']:,}",
            "-" if kept is None else f"{kept:,}",
            "-" if right is None else f"{right:.1%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def page(name: str, table: Sequence[dict[str, Any]], seeds: Sequence[int], budget: int | None) -> str:
    """The comparison as one HTML file in the frame of all pages."""
    values = {"arms": table, "seeds": seeds, "budget": budget, "drawing": svg(table)}
    return render("compare.html", f"Comparison {name}", **values)


def _percent(interval: list[float] | None, sign: str = "") -> str:
    if interval is None:
        return "-"
    value, low, high = (100 * one for one in interval)
    around = f" [{low:{sign}.2f}, {high:{sign}.2f}]" if np.isfinite(low) else ""
    return f"{value:{sign}.2f}{around}"


def svg(table: Sequence[dict[str, Any]]) -> str:
    """The scores as dots with their intervals, an arm a line; of the test set, or of validation images where nothing was tested."""
    on = "test" if any(row["test"] for row in table) else "validation"
    return comparison_svg([(row["arm"], row[on]) for row in table], f"score on {on} images, % (95 % interval)")
