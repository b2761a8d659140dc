"""Several recipes side by side: one table with intervals, cost and pseudo-label quality, and its picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.ground.steps import differences
from engine.metrics.accuracy import Interval, mcnemar, mean_over_seeds, wilson
from engine.report.cost import Cost
from engine.report.figures import comparison_svg
from engine.settings.block import get_value
from engine.settings.run import RunSettings

Right = npt.NDArray[np.bool_]

SAME = ("data", "models.teacher")
"""Settings in which all arms have to agree for the comparison to mean anything."""


@dataclass(frozen=True)
class Outcome:
    """One arm in one random state: the metrics of the model that its run recommends, what the run cost, and which images it got right."""

    row: dict[str, Any]
    cost: Cost
    right: dict[str, Right]
    """By collection ("validation", "test"), in address order."""


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


def accuracy_of(outcomes: Sequence[Outcome], on: str) -> Interval | None:
    """Over random states with Student's t interval where there are several, else of the images with Wilson's; None where it was not measured."""
    rights = [outcome.right[on] for outcome in outcomes if on in outcome.right]
    if not rights:
        return None
    if len(rights) > 1:
        return mean_over_seeds([float(right.mean()) for right in rights])
    (right,) = rights
    return Interval(float(right.mean()), *wilson(int(right.sum()), right.size))


def difference_to(first: Sequence[Outcome], outcomes: Sequence[Outcome], on: str) -> Interval | None:
    """Accuracy minus that of the first arm, the same images and random states paired."""
    pairs = [
        (a.right[on], b.right[on]) for a, b in zip(first, outcomes, strict=False) if on in a.right and on in b.right
    ]
    if not pairs:
        return None
    if len(pairs) == 1:
        return mcnemar(*pairs[0]).difference
    return mean_over_seeds([float(b.mean() - a.mean()) for a, b in pairs])


def rows(arms: Sequence[Arm], budget: int | None = None) -> list[dict[str, Any]]:
    """The table as plain values, ready for JSON; the first arm is the one that the others are compared with."""
    made = []
    for arm in arms:
        trained = int(np.mean([outcome.cost.trained for outcome in arm.outcomes]))
        quality = [o.row["pseudo_accuracy"] for o in arm.outcomes if o.row["pseudo_accuracy"] is not None]
        made.append(
            {
                "arm": arm.name,
                "recipe": arm.recipe,
                "states": len(arm.outcomes),
                **{on: _plain(accuracy_of(arm.outcomes, on)) for on in ("validation", "test")},
                "difference": None if arm is arms[0] else _plain(_difference(arms[0], arm)),
                "trained": trained,
                "labelled": int(np.mean([outcome.cost.labelled for outcome in arm.outcomes])),
                "over_budget": budget is not None and trained > 1.01 * budget,
                "pseudo_labels": arm.outcomes[0].row["pseudo_labels"],
                "pseudo_accuracy": float(np.mean(quality)) if quality else None,
            }
        )
    return made


def _difference(first: Arm, arm: Arm) -> Interval | None:
    tested = difference_to(first.outcomes, arm.outcomes, "test")
    return tested if tested is not None else difference_to(first.outcomes, arm.outcomes, "validation")


def _plain(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.value, interval.low, interval.high]


def markdown(table: Sequence[dict[str, Any]]) -> str:
    """The table in Markdown: accuracies in % with 95 % intervals."""
    lines = [
        "| arm | states | validation | test | paired difference to the first | images trained on | labelled | pseudo-labels | right |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in table:
        over = " (over budget)" if row["over_budget"] else ""
        kept, right = row["pseudo_labels"], row["pseudo_accuracy"]
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


def _percent(interval: list[float] | None, sign: str = "") -> str:
    if interval is None:
        return "-"
    value, low, high = (100 * one for one in interval)
    around = f" [{low:{sign}.2f}, {high:{sign}.2f}]" if np.isfinite(low) else ""
    return f"{value:{sign}.2f}{around}"


def svg(table: Sequence[dict[str, Any]]) -> str:
    """The accuracies as dots with their intervals, an arm a line; of the test set, or of validation images where nothing was tested."""
    on = "test" if any(row["test"] for row in table) else "validation"
    return comparison_svg([(row["arm"], row[on]) for row in table], f"accuracy on {on} images, % (95 % interval)")
