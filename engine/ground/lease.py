"""Single flight: a step that several processes want at once is made by one of them while the others wait for it.

Works on any filesystem of the store, without locks or atomic rename. Each contender puts two small files below `STEP/lease/`:

    <id>.claim   put once: its time of writing is the contender's place in the queue
    <id>.beat    put again and again while the contender lives

The first in the queue whose beat is young holds the lease. All times are the filesystem's own, so clocks of machines do not matter. A holder that is
killed stops beating and is passed over after `expiry` seconds. Nothing depends on the lease: two holders would waste work, and the step's commit
would still be right. (Network disks that cache their listings can let two through.)
"""

import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import pyarrow.fs as pafs

from engine.ground import storage

EXPIRY = 40.0
"""Seconds without a beat after which a contender counts as dead."""
BEATS = 4
"""Beats put in that time."""
SETTLE_LOCAL = 0.05
SETTLE_REMOTE = 1.5
"""Seconds after which every claim of the same time of writing can be seen: disks stamp in ms, object stores in whole seconds."""


@dataclass(frozen=True)
class Contender:
    """What the lease's folder tells of one of them; times in seconds by the filesystem's clock."""

    name: str
    claimed: float
    beat: float


def holder(contenders: list[Contender], now: float, expiry: float) -> Contender | None:
    """Who holds the lease: the earliest claim among those whose last beat is at most `expiry` old; equal times go by name."""
    alive = [one for one in contenders if now - one.beat <= expiry]
    return min(alive, key=lambda one: (one.claimed, one.name), default=None)


class Lease:
    """A place in the queue for `folder`, kept from `with` to its end. `mine()` says whether its turn has come."""

    def __init__(self, fs: storage.FileSystem, folder: str, expiry: float = EXPIRY) -> None:
        self.fs, self.folder, self.expiry = fs, folder, expiry
        self.name = uuid.uuid4().hex[:12]
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat_on, daemon=True, name="lease")

    def __enter__(self) -> Self:
        self._put("beat")
        self._put("claim")
        self._heart.start()
        self._over.wait(SETTLE_LOCAL if isinstance(self.fs, pafs.LocalFileSystem) else SETTLE_REMOTE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._heart.join()
        self._remove(self.name)

    def mine(self) -> bool:
        """Whether this contender holds the lease now. Files of the dead are removed on the way."""
        self._put("beat")
        found = self._contenders()
        now = next((one.beat for one in found if one.name == self.name), None)
        if now is None:  # somebody took us for dead: queue again
            self._put("claim")
            return False
        for one in found:
            if now - one.beat > 2 * self.expiry:
                self._remove(one.name)
        first = holder(found, now, self.expiry)
        return first is not None and first.name == self.name

    def _contenders(self) -> list[Contender]:
        infos = self.fs.get_file_info(pafs.FileSelector(self.folder, allow_not_found=True))
        times: dict[str, dict[str, float]] = {}
        for info in infos:
            name, _, kind = info.base_name.partition(".")
            if kind in ("claim", "beat"):
                times.setdefault(name, {})[kind] = info.mtime_ns / 1e9
        return [Contender(name, seen["claim"], seen["beat"]) for name, seen in times.items() if len(seen) == 2]

    def _beat_on(self) -> None:
        while not self._over.wait(self.expiry / BEATS):
            with suppress(
                OSError
            ):  # a store that does not answer is told by the work itself; the next beat is soon enough
                self._put("beat")

    def _put(self, kind: str) -> None:
        storage.put(self.fs, f"{self.folder}/{self.name}.{kind}", b".")

    def _remove(self, name: str) -> None:
        for kind in ("claim", "beat"):
            with suppress(FileNotFoundError):  # removed by another contender
                self.fs.delete_file(f"{self.folder}/{name}.{kind}")
