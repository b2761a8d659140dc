"""YAML as settings are written: dates, clock times and leading zeros stay text, `1e-3` is a number, no key occurs twice, nothing is nested deeply.

What is read here is YAML for every other reader, too: `write` quotes whatever another reader would take for something else than text.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

DEEPEST = 50
MOST_VALUES = 100_000
"""Values of one file after its aliases are followed: a few lines of aliases of aliases can mean billions."""


class _Reader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.YAMLError(
                    f"the key {key.value!r} occurs twice, in lines {seen[key.value]} and {line}: keep one"
                )
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                seen[key.value] = line
        return super().construct_mapping(node, deep)


class _Writer(yaml.SafeDumper):
    yaml_implicit_resolvers = {key: list(found) for key, found in yaml.SafeDumper.yaml_implicit_resolvers.items()}  # noqa: RUF012


_FLOAT = r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
for _tag, _pattern, _first in (
    ("bool", r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F_]+|0b[01_]+", "-+0123456789"),
    ("float", rf"(?:{_FLOAT}|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))", "-+0123456789."),
    ("merge", r"<<", "<"),
):
    _Reader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))
    if _tag == "float":
        _Writer.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))


def read(text: str) -> Any:
    """The plain tree in `text`. Raises ValueError for what is no YAML, a key that occurs twice, and a tree that is too deep or too large."""
    try:
        _refuse_depth(text)
        tree = yaml.load(text, _Reader)
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML: {error}") from None
    except ValueError as error:
        raise ValueError(f"not valid YAML: {error}") from None
    if sum(1 for _ in _values(tree)) > MOST_VALUES:
        raise ValueError(f"more than {MOST_VALUES:,} values, or an alias that contains itself: write it out")
    return tree


def read_value(text: str) -> Any:
    """The value of an override. Raises ValueError as `read`, and for a comment, which would cut the value without a word."""
    value = read(text)
    ends = [
        event.end_mark.index
        for event in yaml.parse(text, _Reader)
        if isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent) and event.end_mark is not None
    ]
    if text[max(ends, default=0) :].strip().startswith("#"):
        raise ValueError(
            f"what follows # is a comment in YAML; if you mean it, put the value in quotes: '\"{text.strip()}\"'"
        )
    return value


def write(tree: Any) -> str:
    """`tree` as YAML that `read` and other readers turn into the same tree."""
    return yaml.dump(tree, Dumper=_Writer, sort_keys=False)


def _refuse_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, _Reader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            line = event.start_mark.line + 1 if event.start_mark is not None else "?"
            raise yaml.YAMLError(f"line {line}: nested more than {DEEPEST} deep")


def _values(tree: Any) -> Iterator[None]:
    """One None for each value, at most `MOST_VALUES` and one."""
    waiting, count = [tree], 0
    while waiting and count <= MOST_VALUES:
        value = waiting.pop()
        count += 1
        yield None
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
