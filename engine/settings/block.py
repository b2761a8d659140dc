"""How settings are read: YAML in, dotted overrides, unknown keys refused with a suggestion, resolved YAML out."""

import difflib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class SettingsError(ValueError):
    """A setting is unknown, mistyped or impossible; the message says which, where, and what to do."""


class Block(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


Settings = TypeVar("Settings", bound=Block)


def load(kind: type[Settings], path: str | Path, overrides: list[str] | None = None) -> Settings:
    """Settings of `kind` from a YAML file with dotted `key=value` overrides on top.

    Raises SettingsError naming the file, the key and a suggestion when anything is unknown, mistyped or out of range.
    """
    file = Path(path)
    try:
        tree = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        raise SettingsError(f"{file}: no such config; see jobs/configs/ for examples") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{file}: not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise SettingsError(f"{file}: a config is a mapping of settings, found {type(tree).__name__}")
    for override in overrides or []:
        _apply(tree, override)
    return parse(kind, tree, str(file))


def parse(kind: type[Settings], tree: dict[str, Any], where: str) -> Settings:
    """Settings of `kind` from a plain tree; every problem is listed, each with the remedy."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(kind, problem)}" for problem in error.errors())
        raise SettingsError(f"{where}: settings that cannot be used:\n{problems}") from None


def dump(settings: Block) -> str:
    """The resolved settings as YAML, every default written out."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)


def _apply(tree: dict[str, Any], override: str) -> None:
    path, separator, value = override.partition("=")
    if not separator:
        raise SettingsError(
            f"override {override!r}: write it as key=value, with dots between levels, e.g. select.threshold=0.9"
        )
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise SettingsError(f"override {override!r}: the value is not valid YAML: {error}") from None
    set_value(tree, path, parsed, f"override {override!r}")


def set_value(tree: dict[str, Any], path: str, value: Any, where: str) -> None:
    """Put `value` at the dotted `path` of a plain tree, making the groups on the way. Raises SettingsError for a way through a value."""
    *parents, leaf = path.split(".")
    node = tree
    for parent in parents:
        if node.get(parent) is None:
            node[parent] = {}
        node = node[parent]
        if not isinstance(node, dict):
            raise SettingsError(f"{where}: {parent!r} is a value, not a group of settings")
    node[leaf] = value


def _explain(kind: type[BaseModel], problem: Any) -> str:
    """One validation problem as a sentence, with the nearest known key for an unknown one."""
    path = [str(part) for part in problem["loc"]]
    dotted = ".".join(path) or "the whole"
    if problem["type"] == "extra_forbidden":
        known = _known_keys(kind, path[:-1])
        close = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"{dotted}: unknown setting; {hint}"
    if problem["type"] == "missing":
        return f"{dotted}: required, but not set"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{dotted}: {message[0].lower()}{message[1:]} (got {problem['input']!r})" if path else message


def _known_keys(kind: type[BaseModel], path: list[str]) -> list[str]:
    """Names of the settings in the group at `path`."""
    for part in path:
        field = kind.model_fields.get(part)
        inner = _block_of(field.annotation) if field else None
        if inner is None:
            continue  # a key of a mapping: the mapping's blocks follow
        kind = inner
    return list(kind.model_fields)


def _block_of(annotation: Any) -> type[BaseModel] | None:
    """The settings block inside an annotation such as `X | None` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((block for arg in getattr(annotation, "__args__", ()) if (block := _block_of(arg))), None)
