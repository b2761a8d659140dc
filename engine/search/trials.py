"""A search's trials: what each is, what it has reported, and where that is kept.

A trial is a run of the main job and carries settings, never weights: a student that goes on from another trial's has that trial's values as the
first generations of its own schedule, and finds the student in the store. All that a search knows stands in its records, so it is restored
from any machine by starting it again.
"""

import json
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from engine.ground import storage
from engine.ground.record import json_text
from engine.ground.run import Run
from engine.recipes.registry import SelfTrainSettings
from engine.search.space import Values, with_values
from engine.settings.block import parse
from engine.settings.names import check_file_name

State = Literal["running", "finished", "stopped", "failed"]


@dataclass(frozen=True)
class Trial:
    """What is tried. `cohort` counts from 1: the generation that is searched, or 1 for all of mode `runs`."""

    cohort: int
    number: int
    values: Values
    """What this trial draws: for all generations in mode runs, else for the last of its schedule."""
    before: tuple[Values, ...] | None = None
    """The schedule's earlier generations; None in mode runs."""
    parent: int | None = None
    """Number of the trial of the cohort before whose student teaches."""

    @property
    def name(self) -> str:
        return f"{self.cohort}-{self.number:03d}"

    @property
    def schedule(self) -> list[Values] | None:
        """One mapping a generation; None when all generations are alike."""
        return None if self.before is None else [*self.before, self.values]


@dataclass(frozen=True)
class TrialReport:
    """Validation score of the model to use after a generation, with its 95 % interval."""

    generation: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class TrialRecord:
    """A trial and what became of it."""

    trial: Trial
    state: State = "running"
    reports: tuple[TrialReport, ...] = ()
    error: str = ""

    @property
    def value(self) -> float | None:
        """What the search maximises: the last score; None before there is one, and for a trial that failed on its way."""
        return self.reports[-1].value if self.reports and self.state != "failed" else None

    @property
    def over(self) -> bool:
        """Whether it needs no more work. What failed is tried again by the next start of the search."""
        return self.state in ("finished", "stopped")

    def after(self, report: TrialReport) -> Self:
        """With one more report, by generation; one of the same generation is replaced, as when a killed trial comes by again. Later ones stay:
        the trial had come that far."""
        others = [one for one in self.reports if one.generation != report.generation]
        return replace(self, reports=tuple(sorted([*others, report], key=lambda one: one.generation)))

    @classmethod
    def load(cls, plain: dict[str, Any]) -> Self:
        trial = plain["trial"]
        before = None if trial["before"] is None else tuple(trial["before"])
        # by position: records of earlier versions call the value otherwise
        reports = tuple(TrialReport(*report.values()) for report in plain["reports"])
        return cls(Trial(**{**trial, "before": before}), plain["state"], reports, plain["error"])


def best(records: list[TrialRecord]) -> TrialRecord | None:
    """The finished record of highest value, or the stopped one when none finished: nobody has seen how the run of its settings ends. Of equals
    the first, which is the cheaper."""
    known = [(record.state == "finished", record.value, record) for record in records if record.value is not None]
    return max(known, key=lambda one: (*one[:2], -one[2].trial.cohort, -one[2].trial.number))[2] if known else None


class TrialRecords:
    """The records of a search: RUN/trials/<cohort>-<number>.json, each put whole."""

    def __init__(self, run: Run) -> None:
        self.run, self.folder = run, f"{run.folder}/trials"

    def put(self, record: TrialRecord) -> TrialRecord:
        self.run.put(f"trials/{record.trial.name}.json", json_text(asdict(record), indent=1).encode())
        return record

    def get(self, name: str) -> TrialRecord:
        return TrialRecord.load(json.loads(storage.get(self.run.store.fs, f"{self.folder}/{name}.json")))

    def all(self) -> list[TrialRecord]:
        """By cohort and number."""
        found = [self.get(name.removesuffix(".json")) for name in storage.names(self.run.store.fs, self.folder)]
        return sorted(found, key=lambda record: (record.trial.cohort, record.trial.number))


def run_name(search: str, trial: Trial) -> str:
    """The name of the run that a trial is."""
    return check_file_name("trial", f"{search}.{trial.name}")


def settings_of(base: SelfTrainSettings, trial: Trial, name: str) -> SelfTrainSettings:
    """The settings of the run that a trial is, called `name`."""
    tree = base.model_dump(mode="json", exclude_unset=True) | {"run": name}
    if trial.schedule is None:
        return with_values(tree, trial.values, schedule=False)
    scheduled = deepcopy(tree) | {"schedule": trial.schedule}
    scheduled["recipe"]["generations"] = len(trial.schedule)
    return parse(SelfTrainSettings, scheduled, f"trial {trial.name}")
