"""Few labels on frozen features: prototypes, nearest neighbours, a probe, and a probe with rounds of self-training, all by the engine's own recipe.

    python -m tests.benchmarks.probe_cifar10 CIFAR10 MODEL_FOLDER OUT               the table, on the test images
    python -m tests.benchmarks.probe_cifar10 CIFAR10 MODEL_FOLDER OUT --develop     other draws, on 2,000 training images: settings are chosen here

Pool: 10,000 training images, embedded once in OUT/store; labels: drawn from 10,000 others, as many of each class. No run has a validation set:
the penalty of a probe is chosen by cross-validation of its labels.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.ground.session import connect
from engine.metrics.interval import Interval, mean_over_seeds
from engine.recipes.registry import SelfTrainSettings
from engine.settings.block import parse
from engine.settings.cluster import ClusterSettings
from jobs.self_train import self_train

POOL, IMAGES = 10_000, 2_000
SHOTS = (1, 4, 25)
DRAWS = 5
ROUNDS: dict[str, Any] = {"generations": 3, "head": {"kind": "probe"}}
ARMS: dict[str, dict[str, Any]] = {
    "prototypes": {"recipe": {"generations": 0, "head": {"kind": "prototypes"}}},
    "knn, 20 neighbours": {"recipe": {"generations": 0, "head": {"kind": "knn"}}},
    "probe": {"recipe": {"generations": 0}},
    "prototypes + 3 rounds": {
        "recipe": {"generations": 3, "head": {"kind": "prototypes"}},
        "select": {"per_class": 300, "targets": "hard"},
    },
    "probe + 3 rounds": {"recipe": ROUNDS, "select": {"per_class": 300, "targets": "hard"}},
}
"""Arms of the table, chosen on the development images."""
TRIALS: dict[str, dict[str, Any]] = {
    **ARMS,
    "rounds, 100 a class": {"recipe": ROUNDS, "select": {"per_class": 100, "targets": "hard"}},
    "rounds, 800 a class": {"recipe": ROUNDS, "select": {"per_class": 800, "targets": "hard"}},
    "rounds, soft, all": {"recipe": ROUNDS, "select": {"targets": "soft"}},
    "rounds, p > 0.5, hard": {"recipe": ROUNDS, "select": {"threshold": 0.5, "targets": "hard"}},
    "rounds, 300 a class, weight 0.1": {
        "recipe": {"generations": 3, "head": {"kind": "probe", "pseudo_weight": 0.1}},
        "select": {"per_class": 300, "targets": "hard"},
    },
}
"""What was tried on them."""


def prepare(cifar: Path, out: Path) -> None:
    """Parquet files of the pool, the development and the test images, each written once."""
    out.mkdir(parents=True, exist_ok=True)
    for name, source, rows in (
        ("pool", "train-01", POOL),
        ("develop", "train-02", IMAGES),
        ("test", "test-00", IMAGES),
    ):
        path = out / f"{name}.parquet"
        if not path.exists():
            pq.write_table(pq.read_table(cifar / f"{source}.parquet").slice(0, rows), path, row_group_size=512)


def draw_labels(cifar: Path, out: Path, shots: int, draw: int) -> Path:
    """A file of `shots` images of each class."""
    path = out / f"labelled-{shots}-{draw}.parquet"
    if not path.exists():
        table = pq.read_table(cifar / "train-00.parquet")
        labels = np.array(table["label"].to_pylist())
        rng = np.random.default_rng((shots, draw))
        rows = np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:shots] for c in np.unique(labels)])
        pq.write_table(table.take(pa.array(np.sort(rows))), path)
    return path


def settings(out: Path, model: Path, arm: dict[str, Any], labelled: Path, measured: str) -> SelfTrainSettings:
    tree = {
        "run": "benchmark",
        "store": str(out / "store"),
        "data": {
            "labelled": str(labelled),
            "pool": str(out / "pool.parquet"),
            "test": str(out / f"{measured}.parquet"),
        },
        "models": {"teacher": {"model": "tf_efficientnet_lite0", "img_size": 96}},
        "predict": {"top_p": 10},
        **{name: value for name, value in arm.items() if name != "recipe"},
        "recipe": {"name": "probe", "backbone": str(model), "embed": {"backend": "frozen"}, **arm["recipe"]},
    }
    return parse(SelfTrainSettings, tree, "benchmark")


def measure(args: argparse.Namespace, draws: range, arms: dict[str, dict[str, Any]], measured: str) -> Iterator[Any]:
    """(arm, labels per class, draw, accuracy, share of right pseudo-labels of the last round, seconds) of every run."""
    for shots in SHOTS:
        for draw in draws:
            labelled = draw_labels(args.cifar, args.out, shots, draw)
            for name, arm in arms.items():
                started = time.perf_counter()
                report: Any = self_train(settings(args.out, args.model, arm, labelled, measured))
                last = report["generations"][-1]
                yield name, shots, draw, last["test"]["value"], last["pseudo_correct"], time.perf_counter() - started


def percent(interval: Interval) -> str:
    return f"{100 * interval.value:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def table(results: list[Any], arms: list[str]) -> str:
    """Markdown: accuracy per arm and number of labels, mean and Student's interval over draws; paired against the probe."""
    found: dict[tuple[str, int], dict[int, Any]] = defaultdict(dict)
    for name, shots, draw, value, right, seconds in results:
        found[name, shots][draw] = (value, right, seconds)
    head = "| arm | " + " | ".join(f"{shots} per class | - probe (paired)" for shots in SHOTS) + " | seconds a run |"
    lines = [head, "|---|" + "---:|" * (2 * len(SHOTS) + 1)]
    for name in arms:
        cells = []
        for shots in SHOTS:
            own, probe = found[name, shots], found["probe", shots]
            cells.append(percent(mean_over_seeds([own[draw][0] for draw in own])))
            paired = mean_over_seeds([own[draw][0] - probe[draw][0] for draw in own])
            cells.append("-" if name == "probe" else percent(paired))
        seconds = float(np.median([one[2] for shots in SHOTS for one in found[name, shots].values()]))
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {seconds:.1f} |")
    for name in arms:
        right = [[one[1] for one in found[name, shots].values() if one[1] is not None] for shots in SHOTS]
        if all(right):
            shown = ", ".join(f"{100 * np.mean(values):.1f} %" for values in right)
            lines += ["", f"Right pseudo-labels of the last round, {name}: {shown}"]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--develop", action="store_true")
    args = parser.parse_args()
    prepare(args.cifar, args.out)
    arms, measured = (TRIALS, "develop") if args.develop else (ARMS, "test")
    draws = range(100, 103) if args.develop else range(DRAWS)
    results = []
    with connect(ClusterSettings()):
        for one in measure(args, draws, arms, measured):
            results.append(one)
            print("RESULT", *one, flush=True)
            (args.out / f"{measured}.json").write_text(json.dumps(results))
    print(table(results, list(arms)))


if __name__ == "__main__":
    main()
