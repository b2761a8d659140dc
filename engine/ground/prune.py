"""Steps that no run uses."""

import json

import pyarrow.fs as pafs

from engine.ground import storage
from engine.ground.steps import Store


def find_unused_steps(store: Store) -> list[str]:
    """Names of the steps to which neither a run nor a stored listing points."""
    steps = store.steps()  # before the pointers: a step that a run starts in the meantime is not in this list
    # at any depth: earlier versions took run=a/b as a name
    selector = pafs.FileSelector(f"{store.root}/runs", recursive=True, allow_not_found=True)
    used = {
        json.loads(storage.get(store.fs, file.path))["step"]
        for file in store.fs.get_file_info(selector)
        if file.type == pafs.FileType.File and file.path.split("/")[-2] == "steps" and file.extension == "json"
    }
    listings = f"{store.root}/listings"
    for name in storage.names(store.fs, listings):
        used.add(json.loads(storage.get(store.fs, f"{listings}/{name}"))["folder"].rsplit("/", 1)[1])
    return [name for name in steps if name not in used]
