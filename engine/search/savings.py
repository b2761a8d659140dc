"""What the trials of a search would have cost alone, and what they cost together: counted in the store."""

from collections.abc import Iterable
from dataclasses import dataclass

from engine.ground import storage
from engine.ground.run import pointers
from engine.ground.steps import Store
from engine.search.trials import TrialRecord, run_name


@dataclass(frozen=True)
class Used:
    """A finished step that a trial uses, and the seconds it took whoever made it."""

    trial: str
    verb: str
    step: str
    seconds: float


@dataclass(frozen=True)
class Saving:
    """Steps of one verb: how often trials wanted one, how many were made, and the seconds of both."""

    verb: str
    wanted: int
    made: int
    seconds_wanted: float
    seconds_made: float


def savings(used: Iterable[Used]) -> list[Saving]:
    """By verb, the dearest first."""
    by_verb: dict[str, list[Used]] = {}
    for one in used:
        by_verb.setdefault(one.verb, []).append(one)
    rows = []
    for verb, uses in by_verb.items():
        made = {use.step: use.seconds for use in uses}
        rows.append(Saving(verb, len(uses), len(made), sum(use.seconds for use in uses), sum(made.values())))
    return sorted(rows, key=lambda row: -row.seconds_wanted)


def steps_used(store: Store, search: str, records: list[TrialRecord]) -> list[Used]:
    """The finished steps of all trials of the search called `search`."""
    used = []
    seconds: dict[str, float | None] = {}
    for record in records:
        run = run_name(search, record.trial)
        if not storage.exists(store.fs, f"{store.root}/runs/{run}/steps"):
            continue  # its process died before it came to a step
        for pointer in pointers(store, run):
            if pointer.step not in seconds:
                committed = store.step_json(pointer.step, "step.json")
                seconds[pointer.step] = committed["lineage"]["seconds"] if committed else None
            took = seconds[pointer.step]
            if took is not None:
                used.append(Used(record.trial.name, pointer.record["verb"], pointer.step, took))
    return used
