"""Greedy search on CIFAR-10 with 400 labels a class from a planted bad setting: how much of the gap to the tuned one does it win back?

    python tests/benchmarks/search_cifar10.py CIFAR OUT [--state 1] [--trials 12]

CIFAR is the folder with train-*.parquet and test-*.parquet. Split and teacher are those of cifar10.py (its OUT may be given: the teacher is found);
students are shorter than there, and learn from scratch: a student that starts from its teacher hides bad settings. Planted: threshold 0.999 and no
noise on pseudo-labelled images. Tuned: jobs/configs/cifar10.yaml. All choices are made on development images; the test set is looked at once for each
of the three. Two generations; killed, it goes on.
"""

import argparse
import copy
from pathlib import Path
from typing import Any

from engine.ground.run import Run, pointers
from engine.ground.steps import Store
from engine.recipes.registry import SelfTrainSettings
from engine.search.job import SearchJobSettings
from engine.search.trials import TrialRecords, run_name
from engine.settings.block import load, parse
from engine.settings.cluster import ClusterSettings
from jobs.search import search
from jobs.self_train import self_train
from tests.benchmarks.cifar10 import CONFIG, make_split

STEPS = 1200
PLANTED: dict[str, Any] = {"hflip": 0.0, "pad": 0, "aa_num_ops": 0, "cutout": 0}
SPACE: dict[str, dict[str, Any]] = {
    "select.threshold": {"uniform": [0.0, 0.999]},
    "fits.student.noise.pseudo.hflip": {"choice": [0.0, 0.5]},
    "fits.student.noise.pseudo.pad": {"choice": [0, 4]},
    "fits.student.noise.pseudo.aa_num_ops": {"choice": [0, 1]},
    "fits.student.noise.pseudo.aa_magnitude": {"uniform": [0.0, 9.0]},
    "fits.student.noise.pseudo.cutout": {"choice": [0, 8]},
}


def tuned(split: Path, store: Path, state: int) -> dict[str, Any]:
    """jobs/configs/cifar10.yaml with students of STEPS steps from scratch, and nobody to send a poor one home."""
    tree = load(SelfTrainSettings, CONFIG).model_dump()
    tree |= {
        "run": "search-tuned",
        "store": str(store),
        "cluster": {"num_cpus": 2, "train": {"cpus": 1}},
    }
    tree["recipe"] |= {"warm_start": False}
    tree["guard"] |= {"enabled": False}
    tree["data"] |= {name: str(split / f"{name}.parquet") for name in ("labelled", "pool", "test")}
    tree["data"] |= {"validation": str(split / "development.parquet")}
    tree["fits"]["teacher"] |= {"seed": state}
    tree["fits"]["student"] |= {"seed": state, "steps": STEPS, "warmup_steps": STEPS // 7, "lr": 0.1}
    return tree


def planted(tree: dict[str, Any]) -> dict[str, Any]:
    bad = copy.deepcopy(tree) | {"run": "search-planted"}
    bad["select"] |= {"threshold": 0.999}
    bad["fits"]["student"]["noise"]["pseudo"] |= PLANTED
    return bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--state", type=int, default=1)
    parser.add_argument("--trials", type=int, default=12)
    arguments = parser.parse_args()
    split, store = arguments.out / "state-0", arguments.out / "store"
    make_split(arguments.cifar, split, 0)
    good = tuned(split, store, arguments.state)
    bad = planted(good)
    asked = {**bad, "run": "search", "search": {"mode": "greedy", "trials": arguments.trials, "space": SPACE}}
    found = search(parse(SearchJobSettings, asked, "search"))
    reports = {
        "planted": self_train(parse(SelfTrainSettings, bad, "planted")),
        "found": self_train(found.settings),
        "tuned": self_train(parse(SelfTrainSettings, good, "tuned")),
    }
    print(table(reports))
    print(passes(Store(str(store))))


def table(reports: dict[str, dict[str, Any]]) -> str:
    """The last generation of each in Markdown, and the share of the gap that was won back."""
    last = {name: report["generations"][-1] for name, report in reports.items()}
    lines = ["| settings | development | test |", "|---|---:|---:|"]
    for name, row in last.items():
        cells = [
            f"{100 * row[on]['accuracy']:.2f} [{100 * row[on]['low']:.2f}, {100 * row[on]['high']:.2f}]"
            for on in ("validation", "test")
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for on in ("validation", "test"):
        low, mid, high = (last[name][on]["value"] for name in ("planted", "found", "tuned"))
        lines.append(f"\n{on}: {(mid - low) / (high - low):.0%} of the gap of {100 * (high - low):.2f} points")
    return "\n".join(lines)


def passes(store: Store) -> str:
    """How many passes over the pool the trials wanted and how many there were."""
    runs = [run_name("search", record.trial) for record in TrialRecords(Run(store, "search", ClusterSettings())).all()]
    wanted = [pointer.step for run in runs for pointer in pointers(store, run) if pointer.title.endswith("predict")]
    return f"{len(runs)} trials wanted {len(wanted)} passes over the pool and made {len(set(wanted))}"


if __name__ == "__main__":
    main()
