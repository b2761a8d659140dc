"""A cohort while it runs: which trial starts next, what the reports mean. No Ray: `tuner.py` carries it out."""

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from engine.ground.progress import log_event
from engine.search.halving import HalvingDecision, decide_halving
from engine.search.trials import Trial, TrialRecord, TrialRecords, TrialReport
from engine.settings.search import HalvingSettings


class Cohort:
    """The records of one cohort, kept up to date in the store and here.

    Trials that were begun come first, with the values they had; those that are over never start again.
    """

    def __init__(
        self,
        records: TrialRecords,
        found: list[TrialRecord],
        size: int,
        propose: Callable[[int, list[TrialRecord]], Trial],
        halving: HalvingSettings | None = None,
        generations: int = 1,
    ) -> None:
        self.records, self.propose, self.halving, self.generations = records, propose, halving, generations
        self.known = {record.trial.name: record for record in found}
        begun = {record.trial.number: record for record in found}
        self.waiting = deque(n for n in range(size) if n not in begun or not begun[n].over)

    def next(self) -> Trial | None:
        """The trial to start now; None when all have been started. Its record is in the store before it starts."""
        if not self.waiting:
            return None
        number = self.waiting.popleft()
        again = next((record for record in self.known.values() if record.trial.number == number), None)
        trial = again.trial if again is not None else self.propose(number, list(self.known.values()))
        record = replace(again, state="running", error="") if again is not None else TrialRecord(trial)
        self.known[trial.name] = self.records.put(record)
        log_event(f"trial {trial.name}", f"{'again' if again else 'begins'}: {format_values(trial)}")
        return trial

    def reported(self, name: str, report: TrialReport) -> HalvingDecision:
        """Take a report down and decide whether the trial goes on; one that does not is recorded as stopped. A trial that comes by a generation
        again, after its process or the search had died later, is not judged again."""
        record = self.known[name] = self.known[name].after(report)
        if record.reports[-1].generation > report.generation:
            decision = HalvingDecision(True, "it had gone on after this generation before")
        else:
            others = [other for key, other in self.known.items() if key != name]
            decision = decide_halving(report, others, self.halving, self.generations)
        span = f"[{report.low:.2%}, {report.high:.2%}]"
        verdict = "" if decision.goes_on else f"; stopped: {decision.reason}"
        log_event(f"trial {name}", f"generation {report.generation}: {report.value:.2%} {span}{verdict}")
        if not decision.goes_on:
            self.known[name] = self.records.put(replace(record, state="stopped"))
        return decision

    def ended(self, errors: dict[str, str]) -> list[TrialRecord]:
        """The records when all trials have ended, by number. `errors`: of processes that died for good, by name of the trial."""
        for name in self.known:
            record = self.known[name] = self.records.get(name)
            if record.state == "running":
                error = errors.get(name, "its process died; the log of its node tells more")
                record = self.known[name] = self.records.put(replace(record, state="failed", error=error))
            if record.state == "failed":
                log_event(f"trial {name}", f"failed: {record.error}")
        return sorted(self.known.values(), key=lambda record: record.trial.number)


def format_values(trial: Trial) -> str:
    """A trial's values in one line."""
    values = ", ".join(f"{path}={value}" for path, value in trial.values.items()) or "the config unchanged"
    return (
        values if trial.parent is None else f"{values}; teacher: the student of {trial.cohort - 1}-{trial.parent:03d}"
    )
