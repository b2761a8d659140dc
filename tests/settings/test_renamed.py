"""Old configs: every key of an earlier version is answered with the key of today, and moved there it works as it did."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.settings.block import SettingsError, get_value, has_key, parse, set_value
from engine.settings.renamed import HOW, RENAMED
from jobs.submit import CONFIGURED

OLD = sorted((Path(__file__).parent / "old_configs").glob("*.yaml"))
"""The example configs of version 1 of the store."""


def kind_of(path: Path) -> Any:
    return CONFIGURED.get(path.stem, CONFIGURED["self_train"])


def read(path: Path) -> dict[str, Any]:
    tree = yaml.safe_load(path.read_text())
    tree.get("search", {}).pop("space", None)  # its keys are dotted; test_space looks at them
    return tree


def moved(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree with every old key where it belongs today."""
    recipe = tree.get("recipe")
    new = {**tree, "recipe": {"name": recipe}} if recipe is not None else dict(tree)
    for old, path in sorted(RENAMED.items(), key=lambda pair: -pair[0].count(".")):
        value = get_value(tree, old)
        group, _, leaf = old.rpartition(".")
        inside = get_value(new, group) if group else new
        if isinstance(inside, dict) and leaf in inside and value is not None:
            inside.pop(leaf)
            set_value(new, path, {True: "bf16"}.get(value, value) if old == "predict.amp" else value, "test")
            if group in ("distil", "clean") and not inside:
                new.pop(group)
    return new


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.name)
def test_every_old_key_is_answered_with_todays(path: Path) -> None:
    tree = read(path)
    old = [key for key in RENAMED if has_path(tree, key)]
    if path.stem == "search":
        tree["search"]["space"] = {"select.threshold": {"uniform": [0, 0.9]}}
    if old:
        with pytest.raises(SettingsError) as caught:
            parse(kind_of(path), tree, path.name)
        for key in old:
            assert f"{RENAMED[key]} is what `{key}` was called: write " in str(caught.value)
    assert parse(kind_of(path), moved(tree), path.name)


def has_path(tree: dict[str, Any], path: str) -> bool:
    group, _, leaf = path.rpartition(".")
    inside = get_value(tree, group) if group else tree
    return isinstance(inside, dict) and leaf in inside


@pytest.mark.parametrize("old", RENAMED)
def test_every_new_key_exists_and_every_old_one_is_gone(old: str) -> None:
    kind = CONFIGURED["self_train"]
    assert has_key(kind, RENAMED[old])
    assert not has_key(kind, old)


def test_the_answer_says_how_the_new_key_is_written() -> None:
    assert HOW.keys() <= RENAMED.keys()
    tree = {"generations": 3, "teacher": {"steps": 1}, "predict": {"amp": True}, "warm_start": True}
    with pytest.raises(SettingsError) as caught:
        parse(CONFIGURED["self_train"], tree, "here")
    for line in (
        "write recipe.generations=3",
        "write fits: {teacher: {…}}",
        "write predict.backend=bf16 for true",
        "write recipe.warm_start=true",
    ):
        assert line in str(caught.value)
