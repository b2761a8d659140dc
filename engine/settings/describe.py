"""Every setting of a job as plain rows: key, type, range, default, description. For `--help` and for `jobs/configs/README.md`."""

import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from engine.settings.block import blocks_of, tag_of


@dataclass(frozen=True)
class Key:
    """One setting. `alternatives`: names of those of its group's alternatives that have it; empty where there are none."""

    path: str
    type: str
    default: str
    description: str
    alternatives: tuple[str, ...] = ()


def keys(kind: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """All settings of `kind` in their order; groups come as their settings, a mapping of groups as `NAME`."""
    for name, field in kind.model_fields.items():
        path = f"{prefix}{name}"
        blocks = blocks_of(field.annotation)
        if not blocks:
            yield Key(path, type_of(field), default_of(field), field.description or "")
        elif len(blocks) > 1:
            yield from _alternatives(blocks, f"{path}.")
        else:
            yield from keys(blocks[0], f"{path}.NAME." if get_origin(field.annotation) is dict else f"{path}.")


def _alternatives(blocks: list[type[BaseModel]], prefix: str) -> Iterator[Key]:
    """The settings of a group of alternatives, each once, with the names of those that have it."""
    names = [str(tag_of(block)) for block in blocks]
    found: dict[Key, list[str]] = {}
    for block, name in zip(blocks, names, strict=True):
        for key in keys(block, prefix):
            if key.path != f"{prefix}name":
                found.setdefault(key, []).append(name)
    yield Key(f"{prefix}name", " | ".join(names), "noisy_student", "name of the recipe")
    for key, having in found.items():
        yield Key(key.path, key.type, key.default, key.description, tuple(having))


def type_of(field: FieldInfo) -> str:
    """A field's type with its limits, as a user reads it."""
    limits = {
        sign: limit
        for sign, attribute in ((">=", "ge"), (">", "gt"), ("<=", "le"), ("<", "lt"))
        for one in field.metadata
        if (limit := getattr(one, attribute, None)) is not None
    }
    return " ".join([_name(field.annotation), *(f"{sign} {limit:g}" for sign, limit in limits.items())])


def _name(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _name(args[0])
    if origin is Literal:
        return " | ".join(str(one) for one in args)
    if origin is dict:
        return f"mapping of {_name(args[1])}"
    if origin is list:
        return f"list of {_name(args[0])}"
    if origin is tuple:
        return f"{len(args)} x {_name(args[0])}"
    if args:
        return " | ".join(_name(one) for one in args if one is not type(None))
    plain = {"str": "text", "int": "whole number", "float": "number", "bool": "true | false", "Any": "any"}
    return plain[str(getattr(annotation, "__name__", annotation))]


def default_of(field: FieldInfo) -> str:
    """A field's default as YAML; empty where the description says it, `required` where there is none."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def help_text(kind: type[BaseModel]) -> str:
    """All settings of `kind` for a terminal."""
    lines = ["settings:"]
    for key in keys(kind):
        default = f", default {key.default}" if key.default not in ("", "required") else ""
        required = " (required)" if key.default == "required" else ""
        own = f" [{', '.join(key.alternatives)}]" if key.alternatives else ""
        lines.append(f"  {key.path}: {key.type}{default}{required}")
        lines += textwrap.wrap(f"{key.description}{own}", 110, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def table(kind: type[BaseModel]) -> str:
    """All settings of `kind` as Markdown."""
    lines = ["| key | type and range | default | what |", "| --- | --- | --- | --- |"]
    for key in keys(kind):
        own = f" ({', '.join(key.alternatives)})" if key.alternatives else ""
        cells = (f"`{key.path}`", key.type, f"`{key.default}`" if key.default else "", f"{key.description}{own}")
        lines.append("| " + " | ".join(re.sub(r"\|", r"\\|", cell) for cell in cells) + " |")
    return "\n".join(lines)
