"""Several recipes on the same data, with the same network and one budget: one table with intervals, cost and pseudo-label quality, and its plot.

    python -m jobs.compare supervised.yaml noisy_student.yaml billion_scale.yaml --store store --name offline --budget 500000 --seeds 0 1 \\
        --set data.labelled=/photos/labelled data.pool=/photos/pool data.test=/photos/test

Each CONFIG is one of jobs.self_train. The budget counts images that go forward and backward in training, over all fits of an arm. Kill it and run the
same command again: it goes on. Arms share what they have in common, and arms or seeds added later reuse all that is there.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from engine.evaluate.evaluate import rows_of, score_of
from engine.ground import storage
from engine.ground.progress import log_event
from engine.ground.run import Run, pointers
from engine.ground.session import connect
from engine.ground.steps import Store, read_output
from engine.labels.classes import ClassList
from engine.models.checkpoint import class_names
from engine.models.fetch import fetch_model
from engine.recipes.registry import SelfTrainSettings
from engine.report.compare import Arm, Outcome, Scored, markdown, refuse_unlike, rows, svg
from engine.report.cost import planned, run_cost
from engine.settings.block import load
from engine.tasks.registry import find_task
from jobs import command
from jobs.self_train import self_train


def main() -> None:
    arguments = asked()
    compare(arms_of(arguments), arguments.store, arguments.name, arguments.seeds, arguments.budget)


def asked(words: list[str] | None = None) -> argparse.Namespace:
    """The command line, or `words`."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "configs",
        nargs="+",
        metavar="CONFIG",
        help="configs of jobs.self_train; the first is what the others are compared with",
    )
    parser.add_argument("--store", default="store", help="folder or URI of the store")
    parser.add_argument("--name", default="compare", help="of the comparison: its files stand in STORE/compare/NAME/")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="random states")
    parser.add_argument("--budget", type=int, help="images trained on, of each arm at most")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="key=value", help="settings that replace those of every config"
    )
    return parser.parse_args(words)


def arms_of(arguments: argparse.Namespace, folder: Path = Path()) -> dict[str, SelfTrainSettings]:
    """The arms by name, their configs found from `folder`. Raises ValueError for what is wrong in one, or for two of one name."""
    overrides = [*arguments.set, f"store={arguments.store}", "run=arm"]
    arms = {Path(one).stem: load(SelfTrainSettings, folder / one, overrides) for one in arguments.configs}
    if len(arms) < len(arguments.configs):
        raise ValueError("two configs have one name: an arm is called as its file is")
    return arms


def refuse(arms: dict[str, SelfTrainSettings], budget: int | None) -> None:
    """Raise ValueError for arms of other data or another network, and for one that would exceed the budget."""
    refuse_unlike(arms)
    for arm, settings in arms.items():
        if budget is not None and planned(settings) > 1.01 * budget:
            raise ValueError(
                f"{arm}: its fits train on {planned(settings):,} images, over the budget of {budget:,}: lower its steps"
            )


def compare(
    arms: dict[str, SelfTrainSettings], store: str, name: str, seeds: list[int], budget: int | None = None
) -> list[dict[str, Any]]:
    """Run every arm in every random state, write compare.json, compare.md and compare.svg, and return the table.

    Raises ValueError before anything is run for arms of other data or another network, and for one that would exceed the budget.
    """
    refuse(arms, budget)
    first = next(iter(arms.values()))
    with connect(first.cluster):
        made = [
            Arm(
                arm, settings.recipe.name, [outcome(in_state(settings, f"{name}-{arm}-{seed}", seed)) for seed in seeds]
            )
            for arm, settings in arms.items()
        ]
    table = rows(made, budget)
    opened = Store(store).open()
    folder = f"{opened.root}/compare/{name}"
    report = {"seeds": seeds, "budget": budget, "arms": table}
    for file, text in (("json", json.dumps(report, indent=1)), ("md", markdown(table)), ("svg", svg(table))):
        storage.put(opened.fs, f"{folder}/compare.{file}", text.encode())
    print(markdown(table))
    log_event("done", f"the table and its plot are in {storage.join(opened.uri, 'compare', name)}")
    return table


def in_state(settings: SelfTrainSettings, run: str, seed: int) -> SelfTrainSettings:
    """The arm as a run of its own, in another random state."""
    return settings.model_copy(update={"run": run, "seed": settings.seed + seed})


def outcome(settings: SelfTrainSettings) -> Outcome:
    """Run one arm in one state, or find it, and look at the model that it recommends."""
    report: dict[str, Any] = self_train(settings)
    row = next(row for row in report["generations"] if row["name"] == report["chosen"])
    store = Store(settings.store)
    run = Run(store, settings.run, settings.cluster)
    model = read_output(store, row["steps"][-1])
    assert model is not None, "a generation ends with its model"
    classes = ClassList(tuple(class_names(fetch_model(model, store.fs))))
    measure = find_task(settings.task)(classes).measure
    scored = {}
    for pointer in pointers(store, settings.run):
        on = pointer.label.rpartition(" ")[2]
        if on in ("validation", "test") and pointer.record["inputs"].get("model") == model.digest:
            answered = read_output(store, pointer.step)
            assert answered is not None, "an evaluated model has its answers"
            scored[on] = Scored(score_of(answered), rows_of(answered, run), measure)
    return Outcome(row, run_cost(store, settings.run), scored)


if __name__ == "__main__":
    command.run(main)
