"""What names a step: everything that decides its output, and nothing else."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import BaseModel

from engine.settings.block import identity

UNSET = "unset"
"""How `differences` shows a field that a record does not have."""


@dataclass(frozen=True)
class StepRecord:
    """A verb, the revision of its program, the settings that decide its output, and the digests of the outputs that it reads.

    `settings`: a block of settings, or plain values among which blocks may be; of a block, what `identity` says of it.
    """

    verb: str
    revision: int
    settings: BaseModel | Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def plain(self) -> dict[str, Any]:
        """The record as JSON values."""
        record = {
            "verb": self.verb,
            "revision": self.revision,
            "settings": identity(self.settings),
            "inputs": dict(self.inputs),
        }
        return json.loads(canonical(record))

    @property
    def name(self) -> str:
        """Name of the step: its verb and a hash of the record."""
        return f"{self.verb}-{fingerprint(self.plain)}"


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str, allow_nan=False)


def json_text(value: Any, **options: Any) -> str:
    """`value` as JSON that every reader takes: numbers that are not finite are null. `options` of `json.dumps`."""
    return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def fingerprint(value: Any) -> str:
    """16 hex digits of the SHA-256 of a plain value."""
    return content_digest(value)[:16]


def content_digest(value: Any) -> str:
    """SHA-256 in hex of a plain value: the digest of an input that is not the output of a step."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """The fields that differ between two records: `settings.lr: 0.1 -> 0.2`."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in sorted(old.keys() | new.keys()):
            lines += differences(old.get(key, UNSET), new.get(key, UNSET), f"{path}.{key}" if path else key)
        return lines
    return [] if old == new else [f"{path}: {old} -> {new}"]
