"""CIFAR-10 with 400 labels a class: does self-training beat the best that the labels alone give, at equal compute?

    python tests/benchmarks/cifar10.py run   CIFAR OUT [--states 0 1 2] [--at-once 2]
    python tests/benchmarks/cifar10.py table OUT [--states 0 1 2]
    python tests/benchmarks/cifar10.py levers CIFAR OUT [--states 0]      one setting changed at a time, development set only

CIFAR is the folder with train-*.parquet and test-*.parquet. Every arm is a run of the main job on durable steps in OUT/store: kill it at any
moment, run it again, and it goes on. A random state draws its own labelled set, pool and initial weights; the development set (5,000 training
images, on which every setting was chosen) and the test set are the same for all. The test set is looked at once an arm, at its end.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.ground.run import pointers
from engine.ground.steps import Store, read_output, read_tables
from engine.metrics.interval import Interval, mean_over_seeds
from engine.metrics.paired import mcnemar

CONFIG = Path(__file__).parents[2] / "jobs" / "configs" / "cifar10.yaml"
LABELS_A_CLASS = 400
DEVELOPMENT = 5_000

ARMS: dict[str, list[str]] = {
    "noisy student": [],
    "supervised, chain's compute": [
        "recipe=supervised",
        "fits.teacher.steps=13650",
        "fits.teacher.warmup_steps=2050",
    ],
    "threshold 0.7, hard": [
        "recipe.name=threshold",
        "select={threshold: 0.7, targets: hard}",
    ],
}
"""Overrides of jobs/configs/cifar10.yaml. The chain's compute is fits of 6,400, 3,200 and 3,200 steps and two passes over the mirrored pool, a
forward counted as a third of a training step: 12,800 + 2 * 2 * 41,000 / 3 / 64 = 13,650 steps."""

ROWS = {
    "supervised: the teacher": ("noisy student", "teacher test"),
    "supervised, chain's compute": ("supervised, chain's compute", "supervised test"),
    "threshold 0.7, hard, round 1": ("threshold 0.7, hard", "round 1 test"),
    "threshold 0.7, hard, round 2": ("threshold 0.7, hard", "round 2 test"),
    "noisy student, generation 1": ("noisy student", "generation 1 test"),
    "noisy student, generation 2": ("noisy student", "generation 2 test"),
}
"""What the table shows: the arm that made the model, and the step that tested it."""


LEVERS: dict[str, list[str]] = {
    "reference: 16 + 48, soft, sharpened to 1/0.5, warm start, mirrored views": [],
    "supervised: the teacher": [*(SUPERVISED := ["recipe=supervised"])],
    "supervised: weak augmentation": [*SUPERVISED, "fits.teacher.noise.labelled={pad: 4}"],
    "supervised: RandAugment 2 x 9": [
        *SUPERVISED,
        "fits.teacher.noise.labelled={pad: 4, aa_num_ops: 2, aa_magnitude: 9, cutout: 8}",
    ],
    "supervised: half as long": [*SUPERVISED, "fits.teacher.steps=3200", "fits.teacher.warmup_steps=480"],
    "32 true + 32 pseudo-labels a step": ["fits.student.batch={labelled: 32, pseudo: 32}"],
    "8 true + 56 pseudo-labels a step": ["fits.student.batch={labelled: 8, pseudo: 56}"],
    "soft, temperature 1": ["select.temperature=1"],
    "hard, p > 0.7": ["select={threshold: 0.7, targets: hard}"],
    "hard, top 3,000 a class": ["select={per_class: 3000, targets: hard}"],
    "soft, top 3,000 a class": ["select={per_class: 3000, targets: soft, temperature: 0.5}"],
    "teacher of one view, for labels and for accuracy": ["predict.views=one"],
    "calibrated teacher, temperature 1": ["predict.calibrate=true", "select.temperature=1"],
    "from scratch": ["recipe.warm_start=false", "fits.student.lr=0.1"],
    "from scratch, twice as long": [
        "recipe.warm_start=false",
        "fits.student.lr=0.1",
        "fits.student.steps=6400",
        "fits.student.warmup_steps=960",
    ],
    "twice as long": ["fits.student.steps=6400", "fits.student.warmup_steps=960"],
    "learning rate 0.1": ["fits.student.lr=0.1"],
    "student 1.5 times as wide, from scratch": [
        "recipe.warm_start=false",
        "fits.student.lr=0.1",
        "models.student={model: resnet8_cifar, img_size: 32, model_args: {width: 24}}",
    ],
    "pre-train on pseudo-labels, fine-tune on labels": [
        "fits.student.batch={pseudo: 64}",
        "fits.student.noise={pseudo: {pad: 4, aa_num_ops: 1, aa_magnitude: 5, aa_uniform: true, cutout: 8}}",
        "fits.student.steps=2400",
        "fits.student.warmup_steps=360",
        "fits.finetune={steps: 800, batch: {labelled: 64}, noise: {labelled: {pad: 4}}, lr: 0.02, smoothing: 0.1, model_ema_decay: 0.99, amp: true}",
    ],
    "weak noise on pseudo-labels": ["fits.student.noise.pseudo={pad: 4}"],
    "dropout 0.2": ["models.student={model: resnet8_cifar, img_size: 32, drop: 0.2, model_args: {width: 16}}"],
    "no average of weights": ["fits.teacher.model_ema=false", "fits.student.model_ema=false"],
    "two generations": ["recipe.generations=2"],
    "two generations, a cut that widens (2,000, then 3,500 a class)": [
        "recipe.generations=2",
        "schedule=[{select.per_class: 2000}, {select.per_class: 3500}]",
    ],
}
"""One generation each unless it says otherwise, all from the same teacher but where the teacher itself is changed."""


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


def run_arm(out: Path, arm: str, state: int) -> int:
    """One arm of one state, as a run of the main job; returns its exit code."""
    return run_job(out, run_name(arm, state), state, ARMS[arm])


def run_lever(out: Path, lever: str, state: int) -> int:
    """One lever, looked at on the development set alone; returns its exit code."""
    return run_job(out, lever_name(lever, state), state, ["recipe.generations=1", "data.test=null", *LEVERS[lever]])


def lever_name(lever: str, state: int) -> str:
    return f"lever-{list(LEVERS).index(lever)}-{state}"


def run_job(out: Path, name: str, state: int, changes: list[str]) -> int:
    """A run of the main job with the config's settings and `changes`, its output in a log of its own."""
    split = out / f"state-{state}"
    collections = ("labelled", "pool", "test")
    overrides = [
        f"run={name}",
        f"store={out / 'store'}",
        *(f"data.{name}={split / name}.parquet" for name in collections),
        f"data.validation={split / 'development'}.parquet",
        f"fits.teacher.seed={state}",
        f"fits.student.seed={state}",
        "cluster.num_cpus=1",
        *changes,
    ]
    with open(out / f"{name}.log", "a") as log:
        command = [sys.executable, "-m", "jobs.self_train", str(CONFIG), *overrides]
        return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode


def right(out: Path, row: str, state: int) -> np.ndarray:
    """Whether each test image was right, bool (10000,), for a row of the table. Raises FileNotFoundError while the arm is unfinished."""
    arm, label = ROWS[row]
    store = Store(str(out / "store"))
    step = next((pointer.step for pointer in pointers(store, run_name(arm, state)) if pointer.title == label), None)
    if step is None:
        raise FileNotFoundError(f"{row}, state {state}: not finished")
    return answers_of(store, step)


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
        spread = mean_over_seeds(means) if len(means) > 1 else Interval(means[0], means[0], means[0])
        paired = mcnemar(np.concatenate(answers[best]), np.concatenate(each))
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


def write_levers(out: Path, states: list[int]) -> str:
    """Development accuracy of the last generation of every lever that is finished, and its difference to the reference, paired."""
    store = Store(str(out / "store"))
    found: dict[str, list[np.ndarray]] = {}
    for lever in LEVERS:
        try:
            found[lever] = [last_validation(store, lever_name(lever, state)) for state in states]
        except FileNotFoundError as missing:
            print(f"{lever}: {missing}", file=sys.stderr)
    reference = np.concatenate(next(iter(found.values())))
    lines = ["| lever | development | difference to the reference (paired) |", "|---|---:|---:|"]
    for lever, each in found.items():
        together = np.concatenate(each)
        paired = mcnemar(reference, together)
        difference = f"{100 * paired.difference.value:+.2f} [{100 * paired.difference.low:+.2f}, {100 * paired.difference.high:+.2f}]"
        lines.append(f"| {lever} | {100 * together.mean():.2f} | {'-' if together is reference else difference} |")
    text = "\n".join(lines)
    (out / "levers.md").write_text(text + "\n")
    return text


def last_validation(store: Store, run: str) -> np.ndarray:
    """Whether each development image was right for the last model of a run. Raises FileNotFoundError while it is unfinished."""
    if not Path(store.root, "runs", run, "metrics.json").exists():
        raise FileNotFoundError(f"{run} is not finished")
    step = [pointer.step for pointer in pointers(store, run) if pointer.title.endswith("validation")][-1]
    return answers_of(store, step)


def answers_of(store: Store, step: str) -> np.ndarray:
    """Whether each image of an evaluate step was right, bool (N,)."""
    output = read_output(store, step)
    if output is None:
        raise FileNotFoundError(f"{step} is not finished")
    table = pa.concat_tables(table for _, table in read_tables(output, store.fs, ["truth", "predicted"]))
    return table["truth"].to_numpy() == table["predicted"].to_numpy()


def run_all(run: Callable[[Path, str, int], int], out: Path, jobs: list[tuple[str, int]], at_once: int) -> None:
    """Run (name, state) jobs side by side and say how each ended."""
    with ThreadPoolExecutor(at_once) as pool:
        codes = pool.map(lambda job: run(out, *job), jobs)
        for (name, state), code in zip(jobs, codes, strict=True):
            print(f"{name}, state {state}: {'finished' if code == 0 else f'exit code {code}, see its log'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run, levers, table = (commands.add_parser(name) for name in ("run", "levers", "table"))
    for command in (run, levers):
        command.add_argument("cifar", type=Path)
        command.add_argument("--at-once", type=int, default=2, help="jobs that run side by side, one core each")
    for command, states in ((run, [0, 1, 2]), (levers, [0]), (table, [0, 1, 2])):
        command.add_argument("out", type=Path)
        command.add_argument("--states", type=int, nargs="+", default=states)
    arguments = parser.parse_args()
    out, states = arguments.out, arguments.states
    if arguments.command == "table":
        print(write_table(out, states))
        return
    out.mkdir(parents=True, exist_ok=True)
    for state in states:
        make_split(arguments.cifar, out / f"state-{state}", state)
    if arguments.command == "levers":
        run_lever(out, next(iter(LEVERS)), states[0])  # the teacher that the others share
        run_all(run_lever, out, [(lever, state) for state in states for lever in LEVERS], arguments.at_once)
        print(write_levers(out, states))
        return
    # the first two arms of every state share nothing and may run side by side; the third uses the first one's teacher
    first, last = list(ARMS)[:2], list(ARMS)[2:]
    for arms in (first, last):
        run_all(run_arm, out, [(arm, state) for state in states for arm in arms], arguments.at_once)


if __name__ == "__main__":
    main()
