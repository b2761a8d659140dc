"""A model by reference: a fitted step of the store, or a model folder, which is imported into the store as a step."""

import hashlib
import time
from pathlib import Path

from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Step, read_output
from engine.models.checkpoint import check_weights, load
from engine.models.fetch import FILES

REVISION = 1


def find_model(run: Run, reference: str, as_init: bool = False) -> Output:
    """The fitted step named `reference`, or the imported model folder. Raises ValueError when it is neither a finished step with a model nor a
    readable folder. `as_init`: only its weights are wanted, so timm's own folder, which has no label names, will do.
    """
    # object stores raise for a path in place of the name of a step
    if "/" not in reference and (output := read_output(run.store, reference)) is not None:
        if "model" not in output.summary:
            raise ValueError(
                f"{reference}: the step has no model. Use a fit-… step (`python -m jobs.status {run.store.uri}` lists them)."
            )
        return output
    folder = Path(reference)
    if not folder.is_dir():
        raise ValueError(f"{reference}: neither a finished step of {run.store.uri} nor a model folder")
    check = check_weights if as_init else load
    check(folder)  # reports a damaged folder here, not in an actor
    contents = {name: (folder / name).read_bytes() for name in FILES}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}

    def work(step: Step) -> Output:
        started = time.time()
        parts = [step.put_file(unit, f"model/{name}", data) for unit, (name, data) in enumerate(contents.items())]
        return step.commit(parts, {"model": "model", "from": str(folder)}, started)

    return run.find_or_run_step("import model", StepRecord("import_model", REVISION, {}, digests), work)
