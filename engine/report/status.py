"""How far a run is, read from storage alone: works on any machine, while the run goes on or after it died."""

import json
import time
from dataclasses import dataclass

import pyarrow.fs as pafs

from engine import storage
from engine.run import Pointer
from engine.steps import PART, Store, read_output


@dataclass(frozen=True)
class StepStatus:
    """One step of a run. `state` is done, working or begun; `total` is unknown (None) for verbs that do not work in shards."""

    label: str
    step: str
    state: str
    done: int
    total: int | None
    detail: str


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
            pointer.label, pointer.step, "done", 0, None, f"{committed['lineage']['seconds']:.0f} s  {detail}"
        )
    if storage.exists(store.fs, f"{folder}/progress.json"):
        seen = json.loads(storage.get(store.fs, f"{folder}/progress.json"))
        rates = f"loss {seen['loss']:.3f}, {seen['images_per_second']:.0f} images/s"
        return StepStatus(
            pointer.label, pointer.step, "working", seen["step"], pointer.record["settings"]["fit"]["steps"], rates
        )
    infos = store.fs.get_file_info(pafs.FileSelector(f"{folder}/parts", allow_not_found=True))
    written = sorted(info.mtime_ns / 1e9 for info in infos if PART.fullmatch(info.base_name))
    total = None
    if storage.exists(store.fs, f"{folder}/plan.json"):
        total = json.loads(storage.get(store.fs, f"{folder}/plan.json")).get("shards")
    return StepStatus(
        pointer.label,
        pointer.step,
        "working" if written else "begun",
        len(written),
        total,
        pace(written, total, now or time.time()),
    )


SHOWN = ("images", "rejected", "excluded", "selected", "rows", "accuracy", "steps", "loss")


def pace(written: list[float], total: int | None, now: float) -> str:
    """Rate and time left from the parts' times of writing (sorted, seconds)."""
    if len(written) < 2:
        return ""
    rate = (len(written) - 1) / max(1e-9, written[-1] - written[0])
    left = f", {(total - len(written)) / rate / 60:.1f} min left" if total else ""
    return f"{rate:.2f} shards/s{left}, last part {now - written[-1]:.0f} s ago"
