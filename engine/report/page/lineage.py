"""Where everything comes from: the steps with what each read, the settings with those that differ from the defaults first, versions."""

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from engine import __version__
from engine.ground.record import json_text
from engine.recipes.registry import SelfTrainSettings
from engine.report.page.source import RecordedStep, RunRecord
from engine.settings.describe import Key, keys
from engine.settings.yaml_text import write

PACKAGES = ("torch", "torchvision", "timm", "ray", "pyarrow", "numpy", "pillow")


@dataclass(frozen=True)
class Input:
    """What a step read: a step of the run (its name in the store), a listed collection, or only a digest."""

    name: str
    step: str | None
    text: str


@dataclass(frozen=True)
class Node:
    """One step. `state`: done, reused or unfinished; `settings`: what of them identifies it, as JSON."""

    title: str
    step: str
    verb: str
    state: str
    engine: str
    inputs: tuple[Input, ...]
    settings: str


@dataclass(frozen=True)
class SettingRow:
    """A setting that differs from its default."""

    path: str
    value: str
    default: str
    description: str


@dataclass(frozen=True)
class Lineage:
    """All of the section. `edges`: places in `nodes`, from the step that was read to the one that read it."""

    nodes: tuple[Node, ...]
    edges: tuple[tuple[int, int], ...]
    changed: tuple[SettingRow, ...]
    all_settings: str
    versions: tuple[tuple[str, str], ...]
    engines: tuple[str, ...]
    seed: int | None


def lineage(record: RunRecord) -> Lineage:
    """The section of a run."""
    nodes = tuple(_node(record, one) for one in record.steps)
    places = {node.step: place for place, node in enumerate(nodes)}
    edges = sorted(
        {
            (places[one.step], place)
            for place, node in enumerate(nodes)
            for one in node.inputs
            if one.step is not None and one.step in places
        }
    )
    return Lineage(
        nodes,
        tuple(edges),
        tuple(changed_settings(record.settings)),
        write(record.settings) if record.settings else "",
        tuple(_versions()),
        tuple(sorted({node.engine for node in nodes if node.engine})),
        record.settings.get("seed"),
    )


def _node(record: RunRecord, step: RecordedStep) -> Node:
    plain = step.pointer.record
    inputs = tuple(_input(record, name, digest) for name, digest in sorted(plain["inputs"].items()))
    state = "unfinished" if step.output is None else "reused" if step.is_reused else "done"
    return Node(
        step.title,
        step.pointer.step,
        step.verb,
        state,
        step.engine,
        inputs,
        json_text(plain["settings"], indent=1, ensure_ascii=False),
    )


def _input(record: RunRecord, name: str, digest: str) -> Input:
    if (maker := record.history.maker(digest)) is not None:
        return Input(name, maker[1].step, maker[0].title)
    manifest = record.history.manifests.get(str(digest).partition("-")[0])
    if manifest is not None:
        return Input(name, None, f"{manifest.num_rows:,} images at {manifest.uri}")
    return Input(name, None, str(digest))


def changed_settings(tree: Mapping[str, Any]) -> Iterator[SettingRow]:
    """The settings of a run that differ from their defaults, in the order of the reference. Nothing that they name is imported or built."""
    recipe = (tree.get("recipe") or {}).get("name")
    known = {key.path: key for key in keys(SelfTrainSettings) if not key.alternatives or recipe in key.alternatives}
    order = {path: place for place, path in enumerate(known)}
    rows = []
    for path, value in _flat(tree, "", known):
        key = known.get(_generic(path, known), Key(path, "", "", ""))
        shown = _text(value)
        if value is None or shown == key.default or _is_number_of(shown, key.default):
            continue
        default = {"required": "(no default)", "": "(none)"}.get(key.default, key.default)
        rows.append((order.get(key.path, len(order)), path, SettingRow(path, shown, default, key.description)))
    yield from (row for _, _, row in sorted(rows, key=lambda one: one[:2]))


def _flat(tree: Mapping[str, Any], prefix: str, known: Mapping[str, Key]) -> Iterator[tuple[str, Any]]:
    """Dotted paths and values; a mapping that is one setting is one value."""
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and value and _generic(path, known) not in known:
            yield from _flat(value, f"{path}.", known)
        else:
            yield path, value


def _generic(path: str, known: Mapping[str, Key]) -> str:
    """The path as the reference has it: NAME for the name of one group among several alike."""
    if path in known:
        return path
    parts = path.split(".")
    for place in range(1, len(parts)):
        generic = ".".join([*parts[:place], "NAME", *parts[place + 1 :]])
        if generic in known:
            return generic
    return path


def _is_number_of(shown: str, default: str) -> bool:
    """Whether both are the same number: 0 and 0.0."""
    try:
        return float(shown) == float(default)
    except ValueError:
        return False


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value, ensure_ascii=False)


def _versions() -> Iterator[tuple[str, str]]:
    """Of the program that made this page."""
    yield "engine", __version__
    yield "python", platform.python_version()
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue
