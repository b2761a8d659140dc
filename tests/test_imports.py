"""The house's direction: a room imports only rooms below it, and the arithmetic knows nothing of Ray."""

import ast
import re
from pathlib import Path

import pytest

ENGINE = Path(__file__).parents[1] / "engine"

ORDER = [
    ("tables",),
    ("settings",),
    ("ground",),
    ("geo",),
    ("labels",),
    ("images",),
    ("dedup",),
    ("metrics",),
    ("models",),
    ("select",),
    ("tasks",),
    ("predict",),
    ("embed",),
    ("gather",),
    ("probe",),
    ("fit",),
    ("evaluate",),
    ("recipes",),
    ("search",),
    ("report",),
    ("export",),
    ("plan",),
    ("cluster",),
]
"""From the ground to the roof."""

ON_RAY = {
    "ground/session.py",
    "ground/resources.py",
    "ground/fanout.py",
    "ground/failure_handler.py",
    "predict/pipeline.py",
    "ground/failures.py",  # tells Ray's exceptions apart, starts nothing
    "plan/measure.py",
    "fit/trainer.py",
    "fit/worker.py",
    "fit/checkpoints.py",
    "fit/progress.py",
    "search/tuner.py",
    "cluster/probe.py",
    "cluster/submission.py",
}
"""The thin modules that put a verb on Ray: all that may import it. What only hands out tasks goes through ground/fanout.py."""

LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
FILES = sorted(ENGINE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def room(name: str) -> str | None:
    """The room of a module called `name`, None for the package itself and for other packages."""
    parts = name.split(".")
    return parts[1] if parts[0] == "engine" and len(parts) > 1 and parts[1] in LEVEL else None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ENGINE)))
def test_imports_run_downward_and_ray_stays_at_the_edge(path: Path) -> None:
    own = path.relative_to(ENGINE).parts[0].removesuffix(".py")
    names = imported(path)
    if own != "__init__":
        above = {name for name in names if (other := room(name)) is not None and LEVEL[other] > LEVEL[own]}
        assert not above, f"{own} imports from above: {sorted(above)}"
    if str(path.relative_to(ENGINE)) not in ON_RAY:
        assert not {name for name in names if name.split(".")[0] == "ray"}, "Ray belongs into the thin modules"


def test_every_file_fits_on_a_few_pages() -> None:
    long = {str(path): lines for path in FILES if (lines := path.read_text().count("\n")) > 400}
    assert not long


def test_no_file_has_a_name_that_says_nothing() -> None:
    assert not {path for path in FILES if path.stem in {"utils", "util", "helpers", "helper", "common", "misc"}}


def test_tasks_may_be_placed_anywhere() -> None:
    """A task without a strategy of its own is caught in the placement group of the Tune trial that starts it, and fails there."""
    starts = [(path, call) for path in FILES for call in re.findall(r"ray\.remote\b(?:\([^)]*)?", path.read_text())]
    assert len(starts) == 3, "tasks are handed out in ground/fanout.py; only measurements place their own"
    caught = {f"{path.name}: {call}" for path, call in starts if "scheduling_strategy=ANYWHERE" not in call}
    assert not caught, "pass scheduling_strategy=ANYWHERE (engine/ground/resources.py)"
