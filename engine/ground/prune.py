"""Steps that no run uses."""

import json

from engine.ground import storage
from engine.ground.run import pointers
from engine.ground.steps import Store


def find_unused_steps(store: Store) -> list[str]:
    """Names of the steps to which neither a run nor a stored listing points."""
    steps = store.steps()  # before the pointers: a step that a run starts in the meantime is not in this list
    runs = storage.folders(store.fs, f"{store.root}/runs")
    used = {
        pointer.step
        for run in runs
        if storage.names(store.fs, f"{store.root}/runs/{run}/steps")
        for pointer in pointers(store, run)
    }
    listings = f"{store.root}/listings"
    for name in storage.names(store.fs, listings):
        used.add(json.loads(storage.get(store.fs, f"{listings}/{name}"))["folder"].rsplit("/", 1)[1])
    return [name for name in steps if name not in used]
