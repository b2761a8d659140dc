"""What a config may not do unless it is trusted: name code that is imported, or a file that is unpickled, which runs what it holds.

The command line is the user's own word; a config may be somebody else's.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from engine.settings.names import texts

TRUST: Any = Field(
    False,
    description="the config may name code: an objective or task as module:Class, or model_args.checkpoint_path, which is unpickled;"
    " not needed for what the command line names",
)
"""The setting `trust` of a job whose config may name code."""

IMPORTED = ("objective", "task")
"""Settings that may name a class as 'package.module:Class'."""
UNPICKLED = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay")
"""Arguments of timm.create_model that name files or addresses, which timm unpickles."""


def untrusted(tree: Any, path: str = "") -> Iterator[str]:
    """Each setting of a plain tree that names code or a file that is unpickled, as `path: value`, also inside schedules and search spaces."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            inner = f"{path}.{key}" if path else str(key)
            leaf = str(key).rpartition(".")[2]
            if leaf in UNPICKLED and value is not None:
                yield f"{inner}: {value}"
            elif leaf in IMPORTED and (named := [text for text in texts(value) if ":" in text]):
                yield f"{inner}: {', '.join(named)}"
            else:
                yield from untrusted(value, inner)
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from untrusted(value, f"{path}[{number}]")
