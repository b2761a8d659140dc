"""Durable steps: the output of a verb is named by its inputs and settings, committed once, and reused by later runs.

    STORE/store.json                      the store's version
    STORE/steps/<verb>-<fingerprint>/     record.json   verb, revision, settings and inputs (written first)
                                          plan.json     choices made once and used by every worker and resume (optional)
                                          parts/…       part-<unit>-<attempt>.parquet, written atomically, in any order, by any worker
                                          parts.parquet the committed parts, with rows and checksums
                                          step.json     digest, summary, lineage (written last: the commit)
    STORE/runs/<run>/                     settings.yaml and, per step, a small file that points to it

The fingerprint is a hash of the verb, its revision, the settings that affect the output and the *digests of the outputs* it reads: a refitted teacher
has another digest, so stale predictions are never reused. Host, number of workers and absolute paths are lineage: recorded, not fingerprinted.
Readers rely on `step.json` alone, so a killed writer or one that was presumed dead can waste work but never corrupt a step.
"""

import hashlib
import io
import json
import platform
import re
import time
import uuid
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine import __version__
from engine.ground import storage
from engine.ground.record import StepRecord, canonical, json_text

STORE_VERSION = 2
PART = re.compile(r"part-(\d+)-[0-9a-f]{8}((?:\.[a-z]+\d+)*)\.parquet")
"""Name of a part: its unit, its attempt, and its times in milliseconds: part-00000012-1a2b3c4d.read16.infer3632.parquet. Times differ from attempt to
attempt, so they are in the name and not in the contents, and `status` needs only one listing to sum them."""
STATS = b"stats"
SIDECAR_ROWS = 65_536
"""Rows per row group of a sidecar: the least that a filter reads."""

PARTS = pa.schema(
    [
        ("unit", pa.int64()),
        ("name", pa.string()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("stats", pa.string()),
    ]
)


class StoreError(ValueError):
    """The store cannot be used; the message gives the remedy."""


@dataclass(frozen=True)
class Part:
    """A committed file of a step: `unit` is the unit of work (a shard), `stats` its statistics."""

    unit: int
    name: str
    rows: int
    bytes: int
    sha256: str
    stats: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Output:
    """A finished step: name, location, and digest of its contents."""

    step: str
    folder: str  # path inside the store's filesystem
    uri: str
    digest: str
    summary: dict[str, Any]

    def parts(self, fs: storage.FileSystem) -> list[Part]:
        """The committed parts, in unit order."""
        return _read_parts(storage.get(fs, f"{self.folder}/parts.parquet"))


def seconds_from_name(name: str) -> dict[str, float]:
    """Seconds per stage, from the name of a part."""
    match = PART.fullmatch(name)
    pairs = re.findall(r"\.([a-z]+)(\d+)", match.group(2)) if match else []
    return {key: int(value) / 1000 for key, value in pairs}


class Store:
    """A folder or URI of steps and runs. Cheap to create and to pickle: its filesystem is opened on first use."""

    def __init__(self, uri: str) -> None:
        self.uri = storage.absolute(uri)

    @cached_property
    def _resolved(self) -> tuple[storage.FileSystem, str]:
        return storage.resolve(self.uri)

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.uri}  # each process opens its own filesystem

    @property
    def fs(self) -> storage.FileSystem:
        return self._resolved[0]

    @property
    def root(self) -> str:
        return self._resolved[1]

    def open(self) -> "Store":
        """Check the version of the store; create the store when it does not exist. Raises StoreError for another version."""
        path = f"{self.root}/store.json"
        if not storage.exists(self.fs, path):
            storage.put(self.fs, path, canonical({"version": STORE_VERSION}).encode())
        try:
            found = json.loads(storage.get(self.fs, path))["version"]
        except (ValueError, KeyError):
            raise StoreError(f"{self.uri}: store.json cannot be read; is this a store of this engine?") from None
        if found != STORE_VERSION:
            raise StoreError(
                f"{self.uri}: store version {found}, this engine reads version {STORE_VERSION}. Use another store, or the engine that wrote it."
            )
        return self

    def step(self, record: StepRecord) -> "Step":
        """The step that `record` names."""
        return Step(self, record)

    def steps(self) -> list[str]:
        """Names of all steps, finished or not."""
        return storage.folders(self.fs, f"{self.root}/steps")

    def step_json(self, step: str, name: str) -> dict[str, Any]:
        """A JSON file of the step named `step` (its record or plan); empty when the file does not exist."""
        try:
            return json.loads(storage.get(self.fs, f"{self.root}/steps/{step}/{name}"))
        except FileNotFoundError:
            return {}


class Step:
    """One durable unit of work of a verb; its files are listed in the docstring of the module."""

    def __init__(self, store: Store, record: StepRecord) -> None:
        self.store = store
        self.record = record.plain
        self.name = record.name

    @property
    def fs(self) -> storage.FileSystem:
        return self.store.fs

    @property
    def folder(self) -> str:
        return f"{self.store.root}/steps/{self.name}"

    @property
    def uri(self) -> str:
        return storage.join(self.store.uri, "steps", self.name)

    def put_json(self, name: str, value: Any) -> None:
        storage.put(self.fs, f"{self.folder}/{name}", json_text(value, indent=1, sort_keys=True, default=str).encode())

    def read_json(self, name: str) -> Any:
        """The value written by `put_json`, or None."""
        try:
            return json.loads(storage.get(self.fs, f"{self.folder}/{name}"))
        except FileNotFoundError:
            return None

    def begin(self) -> None:
        """Write the record, so that `status` and `explain` can read it before the step is finished."""
        if not storage.exists(self.fs, f"{self.folder}/record.json"):
            self.put_json("record.json", self.record)

    def output(self) -> Output | None:
        """The committed output, or None while the step is unfinished."""
        return read_output(self.store, self.name)

    def plan(self, choose: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The plan of the step: computed by `choose` the first time, read from the store afterwards."""
        if (chosen := self.read_json("plan.json")) is not None:
            return chosen
        self.put_json("plan.json", choose())
        return self.read_json("plan.json")

    def put_part(
        self,
        unit: int,
        table: pa.Table,
        stats: dict[str, Any] | None = None,
        seconds: dict[str, float] | None = None,
        **parquet: Any,
    ) -> Part:
        """Encode `table` in memory and write it under a unique name.

        `stats` must be as reproducible as the table: the digest covers them. `seconds` per stage are written into the name.
        """
        stats = stats or {}
        buffer = io.BytesIO()
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), STATS: canonical(stats).encode()})
        pq.write_table(table, buffer, **{"compression": "zstd", "use_compliant_nested_type": False, **parquet})
        data = buffer.getbuffer()
        cost = "".join(f".{key}{round(1000 * value)}" for key, value in (seconds or {}).items())
        name = f"part-{unit:08d}-{uuid.uuid4().hex[:8]}{cost}.parquet"
        storage.put(self.fs, f"{self.folder}/parts/{name}", data)
        return Part(unit, name, table.num_rows, len(data), hashlib.sha256(data).hexdigest(), stats)

    def put_file(self, unit: int, path: str, data: bytes) -> Part:
        """Write a file that is no table to `path` in the step's folder, as a part."""
        storage.put(self.fs, f"{self.folder}/{path}", data)
        return Part(unit, path, 0, len(data), hashlib.sha256(data).hexdigest())

    def put_sidecar(self, folder: str, unit: int, table: pa.Table) -> str:
        """Write a table that belongs to a unit next to its part (its quarantine). Returns the SHA-256 of the file in hex, for the part's statistics
        where later steps read the sidecar.
        """
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd", row_group_size=SIDECAR_ROWS)
        storage.put(self.fs, f"{self.folder}/{folder}/{unit:08d}.parquet", buffer.getbuffer())
        return hashlib.sha256(buffer.getbuffer()).hexdigest()

    def sidecar_units(self, folder: str) -> set[int]:
        """Units with a sidecar in `folder`."""
        return {int(name.partition(".")[0]) for name in storage.names(self.fs, f"{self.folder}/{folder}")}

    def read_sidecar(self, folder: str, unit: int, filters: pc.Expression | None = None) -> pa.Table:
        """The sidecar of a unit, or its rows that pass `filters`; row groups without such rows are not read."""
        path = f"{self.folder}/{folder}/{unit:08d}.parquet"
        return pq.read_table(path, filesystem=self.fs, filters=filters, use_threads=False)

    def drop_sidecars(self, folder: str) -> None:
        """Remove the sidecars in `folder`."""
        if storage.exists(self.fs, f"{self.folder}/{folder}"):
            self.fs.delete_dir(f"{self.folder}/{folder}")

    def found_parts(self, known: Container[int] = ()) -> dict[int, Part]:
        """Parts written by earlier attempts, one per unit, each read and checked; unreadable ones are ignored.

        `known`: units that are not read again."""
        chosen: dict[int, Part] = {}
        matches = [PART.fullmatch(name) for name in storage.names(self.fs, f"{self.folder}/parts")]
        names = [match.group() for match in matches if match and int(match.group(1)) not in known]
        with ThreadPoolExecutor(16) as pool:
            for part in pool.map(self._inspect, names):
                if part is not None:
                    chosen.setdefault(part.unit, part)
        return chosen

    def _inspect(self, name: str) -> Part | None:
        data = storage.get(self.fs, f"{self.folder}/parts/{name}")
        try:
            metadata = pq.read_metadata(io.BytesIO(data))
        except pa.ArrowException:
            return None
        unit = int(PART.fullmatch(name).group(1))  # type: ignore[union-attr]
        stats = json.loads((metadata.metadata or {}).get(STATS, b"{}"))
        return Part(unit, name, metadata.num_rows, len(data), hashlib.sha256(data).hexdigest(), stats)

    def commit(self, parts: Iterable[Part], summary: dict[str, Any], started: float) -> Output:
        """Commit `parts` and finish the step. `started`: time.time() at the start of the work, for the lineage."""
        ordered = sorted(parts, key=lambda part: part.unit)
        storage.put(self.fs, f"{self.folder}/parts.parquet", _write_parts(ordered))
        digest = hashlib.sha256(
            canonical([[part.unit, part.rows, part.sha256] for part in ordered]).encode()
        ).hexdigest()
        lineage = {
            "engine": __version__,
            "host": platform.node(),
            "seconds": round(time.time() - started, 3),
            "finished": time.time(),
        }
        self.put_json(
            "step.json",
            {"digest": digest, "summary": summary, "lineage": lineage, "rows": sum(part.rows for part in ordered)},
        )
        return Output(self.name, self.folder, self.uri, digest, summary)


def verb_of(output: Output) -> str:
    """The verb that made an output."""
    return output.step.rpartition("-")[0]


def read_output(store: Store, name: str) -> Output | None:
    """The output of the step named `name`, or None while it is unfinished."""
    folder = f"{store.root}/steps/{name}"
    try:
        committed = json.loads(storage.get(store.fs, f"{folder}/step.json"))
    except FileNotFoundError:
        return None
    return Output(name, folder, storage.join(store.uri, "steps", name), committed["digest"], committed["summary"])


def read_tables(
    output: Output, fs: storage.FileSystem, columns: list[str] | None = None
) -> Iterator[tuple[Part, pa.Table]]:
    """The parts of a step one by one, checksums verified. Raises StoreError for a part that was changed after the commit."""
    for part in output.parts(fs):
        yield part, read_part(output, fs, part, columns)


def read_part(output: Output | Step, fs: storage.FileSystem, part: Part, columns: list[str] | None = None) -> pa.Table:
    """One part of a finished or unfinished step, checksum verified. Raises StoreError for a part that was changed."""
    data = storage.get(fs, f"{output.folder}/parts/{part.name}")
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise StoreError(
            f"{output.folder}/parts/{part.name}: the contents changed after the commit. Delete the folder of the step and run again."
        )
    table = pq.read_table(io.BytesIO(data), columns=columns)
    metadata = {key: value for key, value in (table.schema.metadata or {}).items() if key != STATS}
    return table.replace_schema_metadata(metadata)


def read_sidecar(output: Output, fs: storage.FileSystem, folder: str, part: Part) -> pa.Table:
    """The sidecar of a part of a finished step, checked against the digest in the part's statistics. Raises StoreError for one that was changed."""
    path = f"{output.folder}/{folder}/{part.unit:08d}.parquet"
    data = storage.get(fs, path)
    if hashlib.sha256(data).hexdigest() != part.stats[folder]:
        raise StoreError(f"{path}: the contents changed after the commit. Delete the folder of the step and run again.")
    return pq.read_table(io.BytesIO(data))


def read_schema(output: Output, fs: storage.FileSystem) -> pa.Schema | None:
    """Schema of the parts of a finished step, from the footer of the first; None for a step without parts."""
    parts = output.parts(fs)
    if not parts:
        return None
    with fs.open_input_file(f"{output.folder}/parts/{parts[0].name}") as file:
        return pq.read_schema(file)


def _write_parts(parts: list[Part]) -> memoryview:
    rows = [{**part.__dict__, "stats": canonical(part.stats)} for part in parts]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=PARTS), buffer, compression="zstd")
    return buffer.getbuffer()


def _read_parts(data: bytes) -> list[Part]:
    rows = pq.read_table(io.BytesIO(data)).to_pylist()
    return [Part(**{**row, "stats": json.loads(row["stats"])}) for row in rows]
