"""What a run spent, counted in images: the currency in which recipes are compared, whatever the machine."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from engine.fit.objective import find_objective
from engine.ground.run import pointers
from engine.ground.steps import Store, read_output
from engine.settings.fit import FitSettings
from engine.settings.run import RunSettings

EVALUATIONS = ("evaluate", "evaluate_soft", "calibrate")
"""Verbs that measure predictions of their own."""


@dataclass(frozen=True)
class Cost:
    """Images that went `trained`, forward and backward, every view counted, and `labelled`, forward alone; evaluation is not counted."""

    trained: int = 0
    labelled: int = 0

    def __add__(self, other: Self) -> "Cost":
        return Cost(self.trained + other.trained, self.labelled + other.labelled)

    @property
    def passes(self) -> float:
        """Forward passes of an image: a backward one counts as two."""
        return 3 * self.trained + self.labelled


def run_cost(store: Store, run: str) -> Cost:
    """The cost of every fit and labelling pass that the run stands on, whoever made it first: a shared teacher counts in every run."""
    steps = {pointer.step: pointer.record for pointer in pointers(store, run)}
    finished = {step: output for step in steps if (output := read_output(store, step)) is not None}
    measured = evaluated(steps.values())
    costs = [of_step(steps[step], one.summary) for step, one in finished.items() if one.digest not in measured]
    return sum(costs, Cost())


def evaluated(records: Iterable[dict[str, Any]]) -> set[str]:
    """Digests of the predictions that were made to be evaluated, and for nothing else."""
    uses = [
        (record["inputs"]["predictions"], record["verb"] in EVALUATIONS)
        for record in records
        if "predictions" in record["inputs"]
    ]
    others = {digest for digest, is_evaluation in uses if not is_evaluation}
    return {digest for digest, is_evaluation in uses if is_evaluation} - others


def of_step(record: dict[str, Any], summary: dict[str, Any]) -> Cost:
    """The cost of one step by its record and summary; that of verbs that neither train nor label is nothing."""
    if record["verb"] == "fit":
        return Cost(trained=_images(FitSettings.model_validate(record["settings"]["fit"])))
    if record["verb"] == "predict":
        return Cost(labelled=summary["images"] * (2 if record["settings"].get("views") == "flip" else 1))
    return Cost()


def planned(settings: RunSettings) -> int:
    """Images that the recipe's fits will train on if no generation is cut short, a pretext's among them."""
    return _images(settings.fits.pretext) + sum(_images(fit) for fit in settings.recipe.fits(settings))


def _images(fit: FitSettings | None) -> int:
    if fit is None:
        return 0
    whole = fit.steps - 2 / 3 * min(fit.freeze_steps, fit.steps)  # under a frozen body images go forward alone
    return round(whole * find_objective(fit.objective).images_per_step(fit))
