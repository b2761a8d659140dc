"""Compare recipes on the same data, with the same network and training budget: a table with intervals, cost and pseudo-label quality, and a plot.

    python -m jobs.compare supervised.yaml noisy_student.yaml billion_scale.yaml --store store --name offline --budget 500000 --seeds 0 1 \\
        --set data.labelled=/photos/labelled data.pool=/photos/pool data.test=/photos/test

Each CONFIG is a config of jobs.self_train. The budget counts images trained on, over all fits of an arm. After a kill, run the same command again to
resume. Arms share common steps, and arms or seeds that are added later reuse existing results.
"""

import argparse
from pathlib import Path
from typing import Any

from engine.evaluate.evaluate import rows_of, score_of
from engine.ground import storage
from engine.ground.progress import log_event
from engine.ground.record import json_text
from engine.ground.run import Run, pointers
from engine.ground.session import connect
from engine.ground.steps import Store, read_output
from engine.labels.classes import ClassList
from engine.models.checkpoint import class_names
from engine.models.fetch import fetch_model
from engine.recipes.registry import SelfTrainSettings
from engine.report.compare import Arm, Outcome, Scored, markdown, page, refuse_unlike, rows, svg
from engine.report.cost import planned, run_cost
from engine.settings.block import load
from engine.settings.names import check_file_name
from engine.tasks.registry import find_task
from jobs import cli
from jobs.self_train import self_train


def main() -> None:
    arguments = parse_arguments()
    compare(arms_of(arguments), arguments.store, arguments.name, arguments.seeds, arguments.budget)


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line, or `words`."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "configs",
        nargs="+",
        metavar="CONFIG",
        help="configs of jobs.self_train; the first is the baseline",
    )
    parser.add_argument("--store", default="store", help="folder or URI of the store")
    parser.add_argument(
        "--name", default="compare", help="name of the comparison; its files are written to STORE/compare/NAME/"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="seeds, added to the seed of each config")
    parser.add_argument("--budget", type=int, help="most images trained on, per arm")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="key=value", help="settings that override those of every config"
    )
    return parser.parse_args(words)


def arms_of(arguments: argparse.Namespace, folder: Path = Path()) -> dict[str, SelfTrainSettings]:
    """The arms by name; configs are relative to `folder`. Raises ValueError for invalid settings and for configs of the same name."""
    overrides = [*arguments.set, f"store={arguments.store}", "run=arm"]
    arms = {Path(one).stem: load(SelfTrainSettings, folder / one, overrides) for one in arguments.configs}
    if len(arms) < len(arguments.configs):
        raise ValueError("two configs have the same file name, which is the name of the arm. Rename one of them.")
    for arm in arms:
        check_file_name("run", f"{arguments.name}-{arm}-{max(arguments.seeds)}")
    return arms


def check_arms(arms: dict[str, SelfTrainSettings], budget: int | None) -> None:
    """Raise ValueError for arms with different data or networks, and for an arm above the budget."""
    refuse_unlike(arms)
    for arm, settings in arms.items():
        if budget is not None and planned(settings) > 1.01 * budget:
            raise ValueError(
                f"{arm}: its fits train on {planned(settings):,} images, over the budget of {budget:,}. Lower their steps."
            )


def compare(
    arms: dict[str, SelfTrainSettings], store: str, name: str, seeds: list[int], budget: int | None = None
) -> list[dict[str, Any]]:
    """Run every arm with every seed, write compare.json, compare.md, compare.svg and compare.html, and return the table.

    Raises ValueError, before anything runs, for arms with different data or networks, and for an arm above the budget.
    """
    check_arms(arms, budget)
    first = next(iter(arms.values()))
    with connect(first.cluster):
        arms_run = [
            Arm(
                arm,
                settings.recipe.name,
                [outcome(with_seed(settings, f"{name}-{arm}-{seed}", seed)) for seed in seeds],
            )
            for arm, settings in arms.items()
        ]
    table = rows(arms_run, budget)
    opened = Store(store).open()
    folder = f"{opened.root}/compare/{name}"
    report = {"seeds": seeds, "budget": budget, "arms": table}
    for file, text in (
        ("json", json_text(report, indent=1)),
        ("md", markdown(table)),
        ("svg", svg(table)),
        ("html", page(name, table, seeds, budget)),
    ):
        storage.put(opened.fs, f"{folder}/compare.{file}", text.encode())
    print(markdown(table))
    log_event("done", f"table and plot: {storage.join(opened.uri, 'compare', name)}")
    return table


def with_seed(settings: SelfTrainSettings, run: str, seed: int) -> SelfTrainSettings:
    """The arm as a separate run with another seed."""
    return settings.model_copy(update={"run": run, "seed": settings.seed + seed})


def outcome(settings: SelfTrainSettings) -> Outcome:
    """Run or reuse one arm with one seed, and read the scores of its best model."""
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
        on = pointer.title.rpartition(" ")[2]
        if on in ("validation", "test") and pointer.record["inputs"].get("model") == model.digest:
            answered = read_output(store, pointer.step)
            assert answered is not None, "an evaluated model has its answers"
            scored[on] = Scored(score_of(answered), rows_of(answered, run), measure)
    return Outcome(row, run_cost(store, settings.run), scored)


if __name__ == "__main__":
    cli.run(main)
