"""A lease on a step: of several processes that need it at the same time one computes it, the others wait.

Works on any filesystem of the store, without locks or atomic rename. Each process writes two small files into `STEP/lease/`:

    <id>.claim   written once: its modification time is the position in the queue, its content where the process runs
    <id>.beat    the heartbeat, written periodically while the process lives

The first in the queue with a recent heartbeat holds the lease. All times are those of the filesystem, so clocks of nodes do not matter. A holder that
is killed sends no more heartbeats and is skipped after `expiry` seconds, or at once by processes of the same machine, which see that it is gone: the
same command again, after a kill, does not wait. Correctness does not depend on the lease: two holders would waste work, and
the commit of the step would still be right. (Network disks that cache listings can admit two holders.)
"""

import os
import socket
import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import pyarrow.fs as pafs

from engine.ground import storage

EXPIRY = 40.0
"""Seconds without a heartbeat after which a process counts as dead."""
HEARTBEATS = 4
"""Heartbeats in that time."""
SETTLE_LOCAL = 0.05
SETTLE_REMOTE = 1.5
"""Seconds after which all claims with the same modification time are visible: disks store it in ms, object stores in whole seconds."""


def machine() -> str:
    """Names the machine and its table of processes, which its containers do not share; systems other than Linux by host alone."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def place() -> str:
    """Where this process runs, on three lines: machine, process id, and when the process began, for ids are used again."""
    return f"{machine()}\n{os.getpid()}\n{psutil.Process().create_time()}"


def is_gone(written: str) -> bool:
    """Whether the process that wrote this place has ended; false for one of another machine, of which nothing is known."""
    where, _, process = written.partition("\n")
    number, _, began = process.partition("\n")
    if where != machine() or not number.isdecimal():
        return False
    try:
        return psutil.Process(int(number)).create_time() != float(began)
    except psutil.NoSuchProcess:
        return True


@dataclass(frozen=True)
class Claim:
    """The claim of one process and its last heartbeat; times in seconds of the clock of the filesystem."""

    name: str
    claimed: float
    beat: float


def holder(claims: list[Claim], now: float, expiry: float) -> Claim | None:
    """The claim that holds the lease: the earliest of those with a heartbeat at most `expiry` seconds old; equal times are ordered by name."""
    alive = [one for one in claims if now - one.beat <= expiry]
    return min(alive, key=lambda one: (one.claimed, one.name), default=None)


class Lease:
    """A position in the queue of `folder` for the length of the block. `renew` reads the queue, `is_held` tells the result."""

    def __init__(self, fs: storage.FileSystem, folder: str, expiry: float = EXPIRY) -> None:
        self.fs, self.folder, self.expiry = fs, folder, expiry
        self.name = uuid.uuid4().hex[:12]
        self._held = False
        self._over = threading.Event()
        self._heartbeat = threading.Thread(target=self._send_heartbeats, daemon=True, name="lease")

    def __enter__(self) -> Self:
        self._put("beat")
        self._put("claim")
        self._heartbeat.start()
        self._over.wait(SETTLE_LOCAL if isinstance(self.fs, pafs.LocalFileSystem) else SETTLE_REMOTE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._heartbeat.join()
        self._remove(self.name)

    def is_held(self) -> bool:
        """Whether this process held the lease at the last `renew`."""
        return self._held

    def renew(self) -> None:
        """Write a heartbeat and read the queue. Claims again if the claim was removed; removes the files of dead processes."""
        self._put("beat")
        claims = self._claims()
        now = next((one.beat for one in claims if one.name == self.name), None)
        if now is None:  # another process presumed this one dead
            self._put("claim")
            self._held = False
            return
        for one in claims:
            if now - one.beat > 2 * self.expiry:
                self._remove(one.name)
        first = holder(claims, now, self.expiry)
        while first is not None and first.name != self.name and self._is_gone(first.name):
            self._remove(first.name)
            claims.remove(first)
            first = holder(claims, now, self.expiry)
        self._held = first is not None and first.name == self.name

    def _claims(self) -> list[Claim]:
        infos = self.fs.get_file_info(pafs.FileSelector(self.folder, allow_not_found=True))
        times: dict[str, dict[str, float]] = {}
        for info in infos:
            name, _, kind = info.base_name.partition(".")
            if kind in ("claim", "beat"):
                times.setdefault(name, {})[kind] = info.mtime_ns / 1e9
        return [Claim(name, seen["claim"], seen["beat"]) for name, seen in times.items() if len(seen) == 2]

    def _is_gone(self, name: str) -> bool:
        """Whether the process of this claim is seen to have ended."""
        try:
            return is_gone(storage.get(self.fs, f"{self.folder}/{name}.claim").decode())
        except (FileNotFoundError, ValueError):  # it left the queue just now, or an earlier version wrote the claim
            return False

    def _send_heartbeats(self) -> None:
        while not self._over.wait(self.expiry / HEARTBEATS):
            with suppress(
                OSError
            ):  # the work itself reports a store that does not answer; the next heartbeat follows soon
                self._put("beat")

    def _put(self, kind: str) -> None:
        content = place() if kind == "claim" else "."
        storage.put(self.fs, f"{self.folder}/{self.name}.{kind}", content.encode())

    def _remove(self, name: str) -> None:
        for kind in ("claim", "beat"):
            with suppress(FileNotFoundError):  # removed by another process
                self.fs.delete_file(f"{self.folder}/{name}.{kind}")
