"""Recipes that train on raw images, on real digits under Ray: from the pool as it lies to a tested model, and through a SIGKILL."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.ground import storage
from engine.ground.steps import Store, read_output
from engine.recipes.registry import SelfTrainSettings
from engine.settings.block import SettingsError, parse
from jobs.self_train import self_train
from tests.small_run import small_tree, write_config
from tests.test_kill_and_resume import finish, kill_when, steps

POOL = {"hflip": 0, "pad": 2, "aa_num_ops": 1}


def tree(digits: Path, store: str, recipe: str, **changed: Any) -> dict[str, Any]:
    """The small job with `recipe`; `teacher` and `pretext` are changes of its teacher's settings."""
    fit = small_tree(digits, store)["fits"]["teacher"]
    for name in ("teacher", "pretext", "finetune"):
        if name in changed:
            changed[name] = {**fit, **changed[name]}
    return small_tree(digits, store, recipe=recipe, student=None, **changed)


CLOCK = ("seconds_per_step", "images_per_second", "waiting")

PRETEXT = {"objective": "rotation", "steps": 20, "batch": {"pool": 24}, "noise": {"pool": POOL}}
ONLINE = {"batch": {"labelled": 16, "pool": 32}, "noise": {"labelled": {"hflip": 0}, "pool": POOL}, "steps": 20}
META = {
    **ONLINE,
    "objective": "meta_pseudo_labels",
    "objective_args": {"weak": {"hflip": 0}, "student_wait": 4, "uda_steps": 10},
}
RECIPES: dict[str, dict[str, Any]] = {
    "rotation": {"pretext": PRETEXT},
    "inpainting": {
        "pretext": {
            **PRETEXT,
            "objective": "inpainting",
            "objective_args": {"holes": [1, 3], "side": [3, 7], "width": 8},
        }
    },
    "self_supervised": {
        "pretext": {**PRETEXT, "objective": "two_views", "opt": "adamw", "lr": 0.001, "clip_grad": 1.0},
        "teacher": {"freeze_steps": 10, "layer_decay": 0.7},
    },
    "fixmatch": {"teacher": {**ONLINE, "objective": "fixmatch", "objective_args": {"cut": "freematch"}}},
    "uda": {"teacher": {**ONLINE, "objective": "uda"}},
    "meta_pseudo_labels": {"teacher": META, "finetune": {"steps": 10, "lr": 0.01}},
}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_pretext_gives_the_initial_weights_of_any_recipe(digits: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    settings = parse(
        SelfTrainSettings, tree(digits, store, "supervised", pretext=PRETEXT, teacher={"freeze_steps": 5}), "test"
    )
    report = self_train(settings)
    assert report["generations"][0]["test"]["images"] == 400  # type: ignore[index]
    fitted, pretext = steps(store)["teacher fit"], steps(store)["pretext fit"]
    opened = Store(store)
    output = read_output(opened, pretext.step)
    assert output is not None
    assert fitted.record["inputs"]["init"] == output.digest
    loaded = opened.step_json(fitted.step, "loaded.json")
    assert sorted(loaded["mismatched"]) == ["head.fc.bias", "head.fc.weight"]
    assert not loaded["missing"]
    assert not loaded["unexpected"]
    assert len(loaded["matched"]) > 20
    described = json.loads(storage.get(opened.fs, f"{output.folder}/{output.summary['model']}/config.json"))
    assert described["label_names"] == ["0°", "90°", "180°", "270°"]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_every_recipe_runs_to_its_end_and_is_found_again(
    digits: Path, tmp_path: Path, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = parse(SelfTrainSettings, tree(digits, str(tmp_path / "store"), recipe, **RECIPES[recipe]), recipe)
    report = self_train(settings)
    assert report["generations"][-1]["test"]["value"] > 0  # type: ignore[index]
    capsys.readouterr()
    assert self_train(settings) == report
    assert " done in " not in capsys.readouterr().out


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_killed_in_the_raw_fit_and_resumed_it_goes_the_same_way(recipe: str, digits: Path, tmp_path: Path) -> None:
    """Killed once in the fit that draws from the pool: the same weights to the bit in every fit, and the same curves."""
    whole, broken = str(tmp_path / "whole"), str(tmp_path / "broken")
    raw = next(name for name in ("pretext", "teacher") if "objective" in RECIPES[recipe].get(name, {}))
    changed = RECIPES[recipe] | {raw: RECIPES[recipe][raw] | {"steps": 60}}
    configs = [
        write_config(tmp_path / f"{Path(store).name}.yaml", tree(digits, store, recipe, **changed))
        for store in (whole, broken)
    ]
    finish(configs[0])
    folder = Path(broken) / "steps"
    kill_when(configs[1], lambda: any(folder.glob("fit-*/train/state-*.pt")))
    assert not any(folder.glob("fit-*/step.json")), "the fit was already over"
    finish(configs[1])
    fits = [label for label in steps(whole) if label.endswith(" fit")]
    assert fits == [label for label in steps(broken) if label.endswith(" fit")]
    for label in fits:
        one, other = (read_output(Store(store), steps(store)[label].step) for store in (whole, broken))
        assert one is not None
        assert other is not None
        assert one.digest == other.digest, label
        assert curve(whole, label) == curve(broken, label), label
    assert len(curve(whole, fits[0])) == 6


def curve(store: str, label: str) -> list[dict[str, float]]:
    """What was logged of a fit, but for what depends on the clock."""
    path = Path(store, "runs", "run", "metrics", f"{label.replace(' ', '-')}.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith(CLOCK)} for row in rows]


@pytest.mark.parametrize(
    ("recipe", "changed", "told"),
    [
        ("rotation", {"pretext": {**PRETEXT, "objective": "two_views"}}, r"pretext\.objective=rotation"),
        ("inpainting", {}, "set fits.pretext"),
        ("fixmatch", {}, r"teacher\.objective=fixmatch"),
        ("meta_pseudo_labels", {"teacher": META}, "set fits.finetune"),
        ("fixmatch", {"generations": 0}, "recipe.generations: belongs to noisy_student, threshold, billion_scale"),
    ],
)
def test_settings_of_another_recipe_are_refused(recipe: str, changed: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        parse(SelfTrainSettings, tree(Path("digits"), "store", recipe, **changed), "test")
