"""Every recipe on CIFAR-10 with 400 labels a class, one small network and one budget (`jobs.compare`), resumably.

    python tests/benchmarks/compare_cifar10.py CIFAR OUT [--group offline] [--arms supervised noisy_student …] [--seeds 0 1]

Groups: `offline`, recipes that store labels; `raw`, those that train on raw images; `clean`. Each but the last begins with `supervised`.
A group takes one core; two that run beside each other share what they have in common.

CIFAR is the folder with train-*.parquet and test-*.parquet. Split, network, teacher and budget are those of cifar10.py, state 0; with the
same OUT its steps are found. The budget of an arm is 819,200 images trained on, forward and backward, every view of one counted: the
teacher's 6,400 steps and two students' 3,200. Tags are made from class names: one of three synonyms each, 20 % of the images with a second,
wrong tag, 10 % with a wrong tag alone. For `clean_labels` 10 % of the labels are wrong in all its fits, so its arm tells of mended labels,
not of the others' start; its first row is that of the wrong labels.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.recipes.registry import SelfTrainSettings
from engine.settings.block import load, parse
from jobs.compare import compare
from tests.benchmarks.cifar10 import CONFIG, make_split
from tests.small_run import run_tree

BUDGET = 819_200
IMAGES = 64
"""A step, of every fit."""
WRONG_LABELS = WRONG_TAGS = 0.1
EXTRA_TAGS = 0.2


def base() -> dict[str, Any]:
    """jobs/configs/cifar10.yaml, which spends the budget, by flat names (`tests.small_run.run_tree`)."""
    tree = load(SelfTrainSettings, CONFIG).model_dump()
    tree.pop("recipe")
    models, fits = tree.pop("models"), tree.pop("fits")
    return {**tree, "teacher_model": models["teacher"], **{name: fit for name, fit in fits.items() if fit is not None}}


def arms() -> dict[str, dict[str, Any]]:
    """Changes of `base()`; the steps of each sum to the budget."""
    plain = base()
    teacher, student = plain["teacher"], plain["student"]
    pairs = {**teacher, "batch": {"pseudo": IMAGES}, "noise": {"pseudo": teacher["noise"]["labelled"]}}
    tuned = {**teacher, "steps": 800, "lr": 0.02, "warmup_steps": 0, "model_ema_decay": 0.99}
    hard = {"per_class": 2000, "classes_per_image": 2, "targets": "hard"}
    tagging = {**pairs, "batch": {"tags": IMAGES}, "noise": {"tags": teacher["noise"]["labelled"]}}
    return {
        "supervised": {
            "recipe": "supervised",
            "teacher": {**teacher, "steps": 12800, "warmup_steps": 1920},
        },
        "noisy_student": {"recipe": "noisy_student", "warm_start": True},
        "threshold": {"recipe": "threshold", "warm_start": True, "select": {"threshold": 0.7, "targets": "hard"}},
        "billion_scale": {
            "recipe": "billion_scale",
            "generations": 1,
            "student": {**pairs, "steps": 5600},
            "finetune": tuned,
            "select": hard,
        },
        "self_distillation": {
            "recipe": "self_distillation",
            "generations": 1,
            "student": None,
            "truth_share": 0.35,
            "select": {},
        },
        "hashtags": {"recipe": "hashtags", "tagging": {**tagging, "steps": 6400}},
        "semi_weakly_supervised": {
            "recipe": "semi_weakly_supervised",
            "generations": 1,
            "tagging": {**tagging, "steps": 5200},
            "teacher": {**tuned, "steps": 1200},
            "student": {**pairs, "steps": 5600},
            "finetune": tuned,
            "select": hard,
        },
        **raw_arms(plain),
        "clean_labels": {
            "recipe": "clean_labels",
            "generations": 1,
            "teacher": {**teacher, "steps": 2000},
            "student": {**student, "steps": 2800},
            "folds": 3,
            "relabel_above": 0.9,
            "warm_start": True,
            "select": {"threshold": 0.9, "targets": "hard"},
        },
    }


def raw_arms(plain: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Half of the budget for a pretext and half for the labels; the online recipes spend it at once."""
    weak, strong = {"pad": 4}, plain["teacher"]["noise"]["labelled"]
    raw = {**plain["teacher"], "smoothing": 0.0, "batch": {"pool": IMAGES}, "noise": {"pool": weak}}
    halved = {"student": None, "teacher": plain["teacher"]}
    online = {**plain["teacher"], "batch": {"labelled": 32, "pool": 48}, "noise": {"labelled": strong, "pool": strong}}
    views = {"weak": weak}
    alone = {"student": None}
    meta = {**online, "batch": {"labelled": 32, "pool": 32}, "objective": "meta_pseudo_labels", "clip_grad": 5.0}
    tuned = {**plain["teacher"], "steps": 800, "lr": 0.01, "warmup_steps": 0, "model_ema_decay": 0.99}
    # the paper's weight of UDA, 8, diverges within 400 steps at this rate
    together = {**views, "student_wait": 300, "uda_steps": 600, "uda_weight": 1.0, "student_warmup_steps": 0}
    return {
        "rotation": {
            **halved,
            "recipe": "rotation",
            "pretext": {**raw, "objective": "rotation", "steps": 6400, "batch": {"pool": IMAGES // 4}},
        },
        "inpainting": {
            **halved,
            "recipe": "inpainting",
            "pretext": {
                **raw,
                "objective": "inpainting",
                "objective_args": {"holes": [2, 5], "side": [4, 13], "width": 16},
                "steps": 6400,
            },
        },
        "two_views": {
            **halved,
            "recipe": "self_supervised",
            "pretext": {
                **raw,
                "objective": "two_views",
                "steps": 3200,
                "opt": "adamw",
                "lr": 0.001,
                "weight_decay": 0.01,
                "clip_grad": 1.0,
                "noise": {"pool": {"scale": [0.35, 1.0], "aa_num_ops": 2, "aa_magnitude": 9}},
            },
        },
        "fixmatch": {
            **alone,
            "recipe": "fixmatch",
            "teacher": {**online, "objective": "fixmatch", "objective_args": views, "steps": 6400},
        },
        "uda": {
            **alone,
            "recipe": "uda",
            "teacher": {**online, "objective": "uda", "objective_args": views, "steps": 6400},
        },
        **{
            name: {
                **alone,
                "recipe": "meta_pseudo_labels",
                "teacher": {**meta, "objective_args": {**together, "arm": arm}, "steps": steps},
                "finetune": tuned,
            }
            for name, arm, steps in (
                ("meta_pseudo_labels", "full", 5250),
                ("meta_no_feedback", "no_feedback", 5250),
                ("meta_uda_only", "uda_only", 8000),
            )
        },
    }


def settings_of(arm: str, split: Path, store: Path) -> SelfTrainSettings:
    """The arm as settings of a run; `clean_labels` reads the labels that are wrong in part."""
    tree = {**base(), **arms()[arm], "store": str(store), "run": arm, "cluster": {"num_cpus": 1}}
    tree["data"] = {**tree["data"], "validation": str(split / "development.parquet")}
    tree["data"] |= {name: str(split / f"{name}.parquet") for name in ("labelled", "pool", "test")}
    if arm in ("hashtags", "semi_weakly_supervised"):
        tree["tags"] = {"table": str(split / "tags.parquet"), "synonyms": str(split / "synonyms.parquet")}
    if arm == "clean_labels":
        tree["data"]["labelled"] = str(split / "wrong.parquet")
        tree["truth"] = str(split / "truth.parquet")
    return parse(SelfTrainSettings, run_tree(**tree), arm)


def of_group(group: str) -> list[str]:
    """Arms that can be compared: those of `clean` have other labels."""
    raw = list(raw_arms(base()))
    groups = {"raw": ["supervised", *raw], "clean": ["clean_labels"]}
    return groups.get(group) or [arm for arm in arms() if arm not in ("clean_labels", *raw)]


def plant(split: Path) -> None:
    """Write tags of the pool with their synonyms, and the labelled set with some labels wrong beside its truth."""
    rng = np.random.default_rng(0)
    pool = pq.read_table(split / "pool.parquet", columns=["key", "label"])
    names = np.unique(pool["label"].to_pylist())
    synonyms = [(f"{name}{ending}", name) for name in names for ending in ("", "s", "photo")]
    wrong, extra = rng.random(len(pool)) < WRONG_TAGS, rng.random(len(pool)) < EXTRA_TAGS
    tags = []
    for label, is_wrong, has_extra in zip(pool["label"].to_pylist(), wrong, extra, strict=True):
        told = [rng.choice(names) if is_wrong else label, *([rng.choice(names)] if has_extra else [])]
        tags.append(" ".join(f"#{one}{rng.choice(['', 's', 'photo'])}" for one in told))
    pq.write_table(pa.table({"key": pool["key"], "tags": tags}), split / "tags.parquet")
    pq.write_table(
        pa.table(dict(zip(("tag", "canonical"), zip(*synonyms, strict=True), strict=True))), split / "synonyms.parquet"
    )
    labelled = pq.read_table(split / "labelled.parquet")
    given = np.array(labelled["label"].to_pylist())
    touched = np.flatnonzero(rng.random(len(given)) < WRONG_LABELS)
    given[touched] = [rng.choice(names[names != one]) for one in given[touched]]
    pq.write_table(labelled.select(["key", "label"]), split / "truth.parquet")
    place = labelled.schema.get_field_index("label")
    pq.write_table(labelled.set_column(place, "label", pa.array(given)), split / "wrong.parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--group", choices=["offline", "raw", "clean"], default="offline")
    parser.add_argument("--arms", nargs="+", choices=list(arms()), help="of the group; all when not given")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    arguments = parser.parse_args()
    split = arguments.out / "state-0"
    make_split(arguments.cifar, split, 0)
    if not (split / "wrong.parquet").exists():
        plant(split)
    store = arguments.out / "store"
    chosen = {arm: settings_of(arm, split, store) for arm in arguments.arms or of_group(arguments.group)}
    compare(chosen, str(store), arguments.group, arguments.seeds, BUDGET)


if __name__ == "__main__":
    main()
