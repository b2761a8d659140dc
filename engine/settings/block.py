"""How settings are read: YAML, dotted overrides, unknown keys refused with a suggestion, resolved YAML out; and what identifies a step."""

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from engine.settings.renamed import HOW, RENAMED

RUNTIME: dict[str, Any] = {"runtime": True}
"""`json_schema_extra` of a setting that changes how a step runs and not what it yields, or names a file whose digest is an input of the step: it
identifies nothing."""


class SettingsError(ValueError):
    """A setting is unknown, mistyped or impossible; the message names it, where it stands, and what to do."""


class Block(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    shorthand: ClassVar[dict[str, str]] = {}
    """Groups that may be written as one value, and the key that the value stands for: `recipe: rotation` is `recipe: {name: rotation}`."""


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
    _expand(kind, tree)
    for override in overrides or []:
        _apply(tree, override)
        _expand(kind, tree)
    return parse(kind, tree, str(file))


def parse(kind: type[Settings], tree: dict[str, Any], where: str) -> Settings:
    """Settings of `kind` from a plain tree; every problem is listed, each with the remedy. Raises SettingsError."""
    tree = dict(tree)
    _expand(kind, tree)
    if problems := list(renamed_keys(kind, tree)):
        raise SettingsError(f"{where}: keys that have new names:\n" + "\n".join(f"  {line}" for line in problems))
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        lines = "\n".join(f"  {_explain(kind, problem)}" for problem in error.errors())
        raise SettingsError(f"{where}: settings that cannot be used:\n{lines}") from None


def dump(settings: Block) -> str:
    """The resolved settings as YAML, every default written out."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)


def set_value(tree: dict[str, Any], path: str, value: Any, where: str) -> None:
    """Put `value` at the dotted `path` of a plain tree, making missing groups. Raises SettingsError for a path through a value."""
    *parents, leaf = path.split(".")
    node = tree
    for parent in parents:
        node[parent] = {} if node.get(parent) is None else node[parent]
        node = node[parent]
        if not isinstance(node, dict):
            raise SettingsError(f"{where}: {parent!r} is a value, not a group of settings")
    node[leaf] = value


def get_value(tree: Any, path: str) -> Any:
    """The value at the dotted `path` of a plain tree; None where there is none."""
    for part in path.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def renamed_keys(kind: type[BaseModel], tree: dict[str, Any]) -> Iterator[str]:
    """One sentence for each old key in `tree`, with the key of today that `kind` has for it."""
    for old, new in RENAMED.items():
        group, _, leaf = old.rpartition(".")
        inside = get_value(tree, group) if group else tree
        if isinstance(inside, dict) and leaf in inside and has_key(kind, new) and not has_key(kind, old):
            yield f"{new} is what `{old}` was called: write {HOW.get(old) or _example(new, inside[leaf])}"


def has_key(kind: type[BaseModel], path: str) -> bool:
    """Whether settings of `kind` have the dotted `path`, for any member of a group of alternatives."""
    kinds: list[type[BaseModel]] = [kind]
    for part in path.split("."):
        fields = [one.model_fields[part] for one in kinds if part in one.model_fields]
        if not fields:
            return False
        kinds = [block for field in fields for block in blocks_of(field.annotation)]
    return True


def blocks_of(annotation: Any) -> list[type[BaseModel]]:
    """The blocks inside an annotation such as `X | None`, `dict[str, X]` or a union of alternatives."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [block for arg in get_args(annotation) for block in blocks_of(arg)]


def identity(settings: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    """What of `settings` identifies a step, as plain values: of a block every field that is not marked RUNTIME and not at its default; of a mapping
    every value.

    A field's `json_schema_extra["equal"]` lists values that yield the same as its default; they are left out, too. Where a default has to
    change, the REVISION of the verbs that read it is raised.
    """
    if isinstance(settings, Mapping):
        return {name: _plain(value) for name, value in settings.items()}
    found = {}
    for name, field in type(settings).model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        value = getattr(settings, name)
        equal = extra.get("equal", [])
        if extra.get("runtime") or (isinstance(equal, list) and value in equal) or _is_default(field, value):
            continue
        found[name] = _plain(value)
    return found


def _is_default(field: FieldInfo, value: Any) -> bool:
    return not field.is_required() and value == field.get_default(call_default_factory=True)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel | Mapping):
        return identity(value)
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


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


def _expand(kind: type[Block], tree: dict[str, Any]) -> None:
    """Write groups in shorthand out, in place."""
    for group, key in kind.shorthand.items():
        if isinstance(tree.get(group), str):
            tree[group] = {key: tree[group]}


def _example(path: str, value: Any) -> str:
    """How a value is written at `path`: on a line of its own where it is a group."""
    if not isinstance(value, dict):
        return f"{path}={str(value).lower() if isinstance(value, bool) else value}"
    text = "{…}"
    for part in reversed(path.split(".")):
        text = f"{{{part}: {text}}}"
    return text[1:-1]


def _explain(kind: type[BaseModel], problem: Any) -> str:
    """One validation problem as a sentence, with the nearest known key for an unknown one."""
    path, block = _path_in(kind, [str(part) for part in problem["loc"]])
    dotted = ".".join(path) or "the whole"
    if problem["type"] == "extra_forbidden":
        known = list(block.model_fields)
        close = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        if not close and (others := _owners(kind, path)):
            return f"{dotted}: belongs to {', '.join(others)}; leave it out or change {'.'.join(path[:-1])}.name"
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"{dotted}: unknown setting; {hint}"
    if problem["type"] == "missing":
        return f"{dotted}: required, but not set"
    if problem["type"] == "union_tag_invalid":
        known = re.findall(r"'(\w+)'", problem["ctx"]["expected_tags"])
        close = difflib.get_close_matches(problem["ctx"]["tag"], known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"{dotted}.name: {problem['ctx']['tag']!r} is unknown; {hint}known here: {', '.join(known)}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{dotted}: {message[0].lower()}{message[1:]} (got {problem['input']!r})" if path else message


def _path_in(kind: type[BaseModel], parts: list[str]) -> tuple[list[str], type[BaseModel]]:
    """`parts` of a location without the tags of alternatives, and the block in which the last of them was looked up."""
    path: list[str] = []
    found: list[type[BaseModel]] = [kind]
    block, is_mapping = kind, False
    for part in parts:
        if len(found) > 1 and (chosen := [one for one in found if tag_of(one) == part]):
            found = chosen
            continue
        path.append(part)
        if is_mapping or not found:
            is_mapping = False
            continue
        block = found[0]
        if (field := block.model_fields.get(part)) is not None:
            found = blocks_of(field.annotation)
            is_mapping = get_origin(field.annotation) in (dict, list)
    return path, block


def tag_of(block: type[BaseModel]) -> str | None:
    """The name of an alternative; None of other blocks."""
    field = block.model_fields.get("name")
    is_tag = field is not None and get_origin(field.annotation) is Literal
    return str(get_args(field.annotation)[0]) if field is not None and is_tag else None


def _owners(kind: type[BaseModel], path: list[str]) -> list[str]:
    """Names of the alternatives that have the last key of `path`."""
    if len(path) != 2 or (field := kind.model_fields.get(path[0])) is None:
        return []
    return [str(tag_of(one)) for one in blocks_of(field.annotation) if path[1] in one.model_fields and tag_of(one)]
