"""A model by reference: a fitted step of the store, or a model folder from elsewhere, taken into the store as a step of its own."""

import hashlib
import time
from pathlib import Path

from engine.ground import storage
from engine.ground.run import Run
from engine.ground.steps import Output, Part, Step, read_output
from engine.models.checkpoint import load
from engine.models.fetch import FILES

REVISION = 1


def find_model(run: Run, reference: str) -> Output:
    """The fitted step that `reference` names. Raises ValueError when there is neither a finished step nor a readable model folder of that name."""
    # object stores refuse to look for a path as if it were a step's name
    if "/" not in reference and (output := read_output(run.store, reference)) is not None:
        if "model" not in output.summary:
            raise ValueError(
                f"{reference}: this step holds no model; name a fit-… step (`python -m jobs.status {run.store.uri}` lists them)"
            )
        return output
    folder = Path(reference)
    if not folder.is_dir():
        raise ValueError(f"{reference}: neither a finished step of {run.store.uri} nor a model folder")
    load(folder)  # a damaged folder is told now, not in an actor
    contents = {name: (folder / name).read_bytes() for name in FILES}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}

    def work(step: Step) -> Output:
        started = time.time()
        for name, data in contents.items():
            storage.put(step.fs, f"{step.folder}/model/{name}", data)
        parts = [
            Part(unit, f"model/{name}", 0, len(data), digests[name])
            for unit, (name, data) in enumerate(contents.items())
        ]
        return step.commit(parts, {"model": "model", "from": str(folder)}, started)

    return run.find_or_run_step("import model", "import_model", REVISION, {}, digests, work)
