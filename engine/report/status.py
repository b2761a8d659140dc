"""How far a run is, read from storage alone: works on any machine, while the run goes on or after it died."""

import json
import time
from dataclasses import dataclass

from engine.ground import storage
from engine.ground.progress import format_duration
from engine.ground.run import Pointer
from engine.ground.steps import Store, read_output
from engine.report import parts


@dataclass(frozen=True)
class StepStatus:
    """One step of a run. `state` is done, working or begun; `total` is unknown (None) for verbs that do not work in shards."""

    label: str
    step: str
    state: str
    done: int
    total: int | None
    detail: str
    more: tuple[str, ...] = ()  # lines for who asks about one run: rejects by reason, slowest shards


def step_status(store: Store, pointer: Pointer, now: float | None = None) -> StepStatus:
    """The state of one step. `now`: time.time(), for the age of the newest part."""
    folder = f"{store.root}/steps/{pointer.step}"
    if (output := read_output(store, pointer.step)) is not None:
        committed = json.loads(storage.get(store.fs, f"{folder}/step.json"))
        facts = {
            key: value
            for key, value in output.summary.items()
            if isinstance(value, int | float) and key in SHOWN and value
        }
        detail = ", ".join(
            f"{key} {value:,}" if isinstance(value, int) else f"{key} {value:.4g}" for key, value in facts.items()
        )
        return StepStatus(
            pointer.title,
            pointer.step,
            "done",
            0,
            None,
            f"{committed['lineage']['seconds']:.0f} s  {detail}",
            parts.reasons_line(output.summary.get("reasons") or {}),
        )
    if storage.exists(store.fs, f"{folder}/progress.json"):
        seen = json.loads(storage.get(store.fs, f"{folder}/progress.json"))
        rates = f"loss {seen['loss']:.3f}, {seen['images_per_second']:.0f} images/s"
        return StepStatus(
            pointer.title, pointer.step, "working", seen["step"], pointer.record["settings"]["fit"]["steps"], rates
        )
    plan = {}
    if storage.exists(store.fs, f"{folder}/plan.json"):
        plan = json.loads(storage.get(store.fs, f"{folder}/plan.json"))
    total = plan.get("shards")
    found = parts.listed(store.fs, f"{folder}/parts")
    notes = (
        pace(found.times, total, now or time.time(), plan.get("images", 0) / max(1, total or 1)),
        found.bottleneck.short() if found.bottleneck else "",
    )
    return StepStatus(
        pointer.title,
        pointer.step,
        "working" if found.times else "begun",
        found.done,
        total,
        "; ".join(one for one in notes if one),
        parts.particulars(store.fs, f"{folder}/parts", found) if found.times else (),
    )


SHOWN = ("images", "rejected", "excluded", "selected", "rows", "value", "steps", "loss")


RECENT = 50
"""Parts at least over which a rate is taken: the newest fifth, so that a pause or a slow start of long ago does not count."""


def pace(written: list[float], total: int | None, now: float, images: float = 0.0) -> str:
    """Rate and time left from the parts' times of writing (sorted, seconds); `images`: those of a shard, on average."""
    if len(written) < 2:
        return ""
    recent = written[-max(RECENT, len(written) // 5) :]
    rate = (len(recent) - 1) / max(1e-9, recent[-1] - recent[0])
    speed = f", {rate * images:,.0f} images/s" if images else ""
    left = f", {format_duration(max(0, total - len(written)) / rate)} left" if total else ""
    return f"{rate:.2f} shards/s{speed}{left}, last part {format_duration(now - written[-1])} ago"
