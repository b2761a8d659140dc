"""CIFAR-10 with 400 labels a class: does self-training beat the best that the labels alone give, at equal compute?

    python tests/benchmarks/cifar10.py run   CIFAR OUT [--states 0 1 2] [--at-once 2]
    python tests/benchmarks/cifar10.py table OUT [--states 0 1 2]

CIFAR is the folder with train-*.parquet and test-*.parquet. Every arm is a run of the main job on durable steps in OUT/store: kill it at any
moment, run it again, and it goes on. A random state draws its own labelled set, pool and initial weights; the development set (5,000 training
images, on which every setting was chosen) and the test set are the same for all. The test set is looked at once an arm, at its end.
"""

import argparse
import itertools
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.metrics.accuracy import Interval, mcnemar, over_states
from engine.run import pointers
from engine.steps import Store, read_output, read_tables

CONFIG = Path(__file__).parents[2] / "jobs" / "configs" / "cifar10.yaml"
LABELS_A_CLASS = 400
DEVELOPMENT = 5_000

ARMS: dict[str, list[str]] = {
    "noisy student": [],
    "supervised, chain's compute": [
        "recipe=supervised",
        "generations=0",
        "teacher.steps=7200",
        "teacher.warmup_steps=1080",
    ],
    "threshold 0.7, hard": [
        "recipe=threshold",
        "generations=1",
        "select={threshold: 0.7, targets: hard}",
    ],
}
"""Overrides of jobs/configs/cifar10.yaml. The teacher of the first arm is the fourth: supervised, one student's compute."""

ROWS = {
    "supervised, a student's compute": ("noisy student", "teacher test"),
    "supervised, chain's compute": ("supervised, chain's compute", "supervised test"),
    "threshold 0.7, hard": ("threshold 0.7, hard", "round 1 test"),
    "noisy student, generation 1": ("noisy student", "generation 1 test"),
    "noisy student, generation 2": ("noisy student", "generation 2 test"),
}
"""What the table shows: the arm that made the model, and the step that tested it."""


def make_split(cifar: Path, folder: Path, state: int) -> None:
    """Write labelled, pool, development and test Parquet files of a random state; the pool's labels serve the report alone."""
    if (folder / "test.parquet").exists():
        return
    train = pa.concat_tables(pq.read_table(path) for path in sorted(cifar.glob("train-*.parquet")))
    names = np.array(train["label"].to_pylist())
    development = np.random.default_rng(2026).permutation(len(names))[:DEVELOPMENT]
    order = np.random.default_rng(state).permutation(len(names))
    order = order[~np.isin(order, development)]
    labelled = np.concatenate([order[names[order] == name][:LABELS_A_CLASS] for name in np.unique(names)])
    pool = order[~np.isin(order, labelled)]
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("labelled", labelled), ("pool", pool), ("development", development)):
        pq.write_table(train.take(np.sort(rows)), folder / f"{name}.parquet", row_group_size=1024)
    pq.write_table(
        pa.concat_tables(pq.read_table(path) for path in sorted(cifar.glob("test-*.parquet"))), folder / "test.parquet"
    )


def run_name(arm: str, state: int) -> str:
    return f"{arm.split(',')[0].replace(' ', '-')}-{state}"


def run_arm(cifar: Path, out: Path, arm: str, state: int) -> int:
    """One arm of one state, as a run of the main job; returns its exit code."""
    split = out / f"state-{state}"
    make_split(cifar, split, state)
    collections = ("labelled", "pool", "test")
    overrides = [
        f"run={run_name(arm, state)}",
        f"store={out / 'store'}",
        *(f"data.{name}={split / name}.parquet" for name in collections),
        f"data.validation={split / 'development'}.parquet",
        f"teacher.seed={state}",
        f"student.seed={state}",
        "cluster.num_cpus=1",
        *ARMS[arm],
    ]
    with open(out / f"{run_name(arm, state)}.log", "a") as log:
        command = [sys.executable, "-m", "jobs.self_train", str(CONFIG), *overrides]
        return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode


def right(out: Path, row: str, state: int) -> np.ndarray:
    """Whether each test image was right, bool (10000,), for a row of the table. Raises FileNotFoundError while the arm is unfinished."""
    arm, label = ROWS[row]
    store = Store(str(out / "store"))
    step = next((pointer.step for pointer in pointers(store, run_name(arm, state)) if pointer.label == label), None)
    output = read_output(store, step) if step else None
    if output is None:
        raise FileNotFoundError(f"{row}, state {state}: not finished")
    table = pa.concat_tables(table for _, table in read_tables(output, store.fs, ["truth", "predicted"]))
    return table["truth"].to_numpy() == table["predicted"].to_numpy()


def write_table(out: Path, states: list[int]) -> str:
    """The table as Markdown: accuracy a row and state, mean with its t interval, and the paired difference to the best supervised row."""
    answers = {row: [right(out, row, state) for state in states] for row in ROWS}
    supervised = [row for row in ROWS if row.startswith("supervised")]
    best = max(supervised, key=lambda row: float(np.mean([each.mean() for each in answers[row]])))
    lines = [
        f"| arm | {' | '.join(f'state {state}' for state in states)} | mean | difference to the best supervised (paired, all states) | p |",
        f"|---|{'---:|' * len(states)}---:|---:|---:|",
    ]
    for row, each in answers.items():
        means = [float(one.mean()) for one in each]
        spread = over_states(means) if len(means) > 1 else Interval(means[0], means[0], means[0])
        paired = mcnemar(np.concatenate(each), np.concatenate(answers[best]))
        difference = f"{100 * paired.difference.value:+.2f} [{100 * paired.difference.low:+.2f}, {100 * paired.difference.high:+.2f}]"
        last = ("-", "-") if row == best else (difference, f"{paired.p_value:.2g}")
        cells = [
            *(f"{100 * mean:.2f}" for mean in means),
            f"{100 * spread.value:.2f} [{100 * spread.low:.2f}, {100 * spread.high:.2f}]",
            *last,
        ]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    text = "\n".join(lines)
    (out / "table.md").write_text(text + "\n")
    (out / "table.json").write_text(
        json.dumps({row: [float(one.mean()) for one in each] for row, each in answers.items()}, indent=1)
    )
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("cifar", type=Path)
    run.add_argument("--at-once", type=int, default=2, help="arms that run side by side, one core each")
    for command in (run, commands.add_parser("table")):
        command.add_argument("out", type=Path)
        command.add_argument("--states", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    if arguments.command == "table":
        print(write_table(arguments.out, arguments.states))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    # the first two arms of every state share nothing and may run side by side; the third uses the first one's teacher
    independent = [(arm, state) for state in arguments.states for arm in list(ARMS)[:2]]
    dependent = [(arm, state) for state in arguments.states for arm in list(ARMS)[2:]]
    for jobs in (independent, dependent):
        with ThreadPoolExecutor(arguments.at_once) as pool:
            arms, states = zip(*jobs, strict=True)
            codes = pool.map(run_arm, itertools.repeat(arguments.cifar), itertools.repeat(arguments.out), arms, states)
            for (arm, state), code in zip(jobs, codes, strict=True):
                print(
                    f"{arm}, state {state}: {'finished' if code == 0 else f'exit code {code}, see its log'}", flush=True
                )


if __name__ == "__main__":
    main()
