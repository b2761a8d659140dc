"""What the run cost: time, images and bytes of every step, what was reused, and the share of each kind of step."""

from collections import Counter
from dataclasses import dataclass

from engine.ground.steps import seconds_from_name
from engine.report.cost import Cost, of_step, run_cost
from engine.report.page.attempt import Attempt, attempt
from engine.report.page.charts import Chart, share_chart
from engine.report.page.sample import sample_parts
from engine.report.page.source import RecordedStep, RunRecord, bytes_of


@dataclass(frozen=True)
class StepCost:
    """One finished step. `stages`: share of the workers' time in each stage, where the step recorded it."""

    title: str
    step: str
    verb: str
    seconds: float
    images: int | None
    bytes: int
    host: str
    is_reused: bool
    stages: tuple[tuple[str, float], ...]

    @property
    def rate(self) -> float | None:
        """Images per second."""
        return self.images / self.seconds if self.images and self.seconds > 0 else None


@dataclass(frozen=True)
class Spending:
    """All of the section. `seconds`: of all steps; `own_seconds`: of those that this run computed itself."""

    steps: tuple[StepCost, ...]
    seconds: float
    own_seconds: float
    bytes: int
    hosts: tuple[str, ...]
    images: Attempt[Cost]
    chart: Attempt[Chart | None]


def spending(record: RunRecord) -> Spending:
    """The section of a run."""
    steps = tuple(_cost(record, one) for one in record.steps if one.output is not None)
    by_verb: Counter[str] = Counter()
    for one in steps:
        by_verb[one.verb] += one.seconds  # type: ignore[assignment]
    shares = [(verb, float(seconds)) for verb, seconds in by_verb.most_common()]
    return Spending(
        steps,
        sum(one.seconds for one in steps),
        sum(one.seconds for one in steps if not one.is_reused),
        sum(one.bytes for one in steps),
        tuple(sorted({one.host for one in steps if one.host})),
        attempt(_images, record),
        attempt(lambda: share_chart(shares) if shares else None),
    )


def _images(record: RunRecord) -> Cost:
    """Images trained on and predicted. Raises ValueError for a fit whose objective is code outside the engine: reading a store runs none."""
    if outside := [one.title for one in record.steps if _objective(one).count(":")]:
        raise ValueError(f"{outside[0]} has an objective of its own, which is not imported to read a report")
    return run_cost(record.store, record.name)


def _objective(step: RecordedStep) -> str:
    return str((step.pointer.record["settings"].get("fit") or {}).get("objective", "")) if step.verb == "fit" else ""


def _trained(step: RecordedStep) -> int | None:
    """Images that a fit trained on."""
    if ":" in _objective(step) or step.output is None:
        return None
    return of_step(step.pointer.record, step.output.summary).trained


def _cost(record: RunRecord, step: RecordedStep) -> StepCost:
    assert step.output is not None, "asked of finished steps"
    summary = step.output.summary
    images = _trained(step) if step.verb == "fit" else summary.get("images", summary.get("rows"))
    return StepCost(
        step.title,
        step.pointer.step,
        step.verb,
        step.seconds,
        images if isinstance(images, int) else None,
        bytes_of(step.output, record.store.fs),
        step.host,
        step.is_reused,
        _stages(record, step) if step.verb == "predict" else (),
    )


def _stages(record: RunRecord, step: RecordedStep) -> tuple[tuple[str, float], ...]:
    """Share of the workers' time by stage, from the names of some parts."""
    assert step.output is not None, "asked of finished steps"
    spent: Counter[str] = Counter()
    for name in sample_parts(step.output, record.store, 4096).names:
        for stage, seconds in seconds_from_name(name).items():
            spent[stage] += seconds  # type: ignore[assignment]
    total = sum(spent.values())
    return tuple((stage, seconds / total) for stage, seconds in spent.most_common()) if total else ()
