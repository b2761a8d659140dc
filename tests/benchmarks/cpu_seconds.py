"""CPU seconds of this process and everything it started, over time: on a shared machine the fairer of the two clocks."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import psutil

INTERVAL = 0.25


class CpuSeconds:
    """A curve of CPU seconds against time.time(). What a process used after it was last looked at is missed: at most INTERVAL of its life."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.spent: list[float] = []
        self._latest: dict[tuple[int, float], float] = {}

    def look(self) -> None:
        """Add a point to the curve."""
        me = psutil.Process()
        for process in (me, *me.children(recursive=True)):
            try:
                used = process.cpu_times()
                self._latest[process.pid, process.create_time()] = used.user + used.system
            except psutil.Error:  # it ended meanwhile: what it had used stays counted
                continue
        self.times.append(time.time())
        self.spent.append(sum(self._latest.values()))

    def between(self, start: float, end: float) -> float:
        """CPU seconds from `start` to `end`, time.time() both."""
        low, high = np.interp((start, end), self.times, self.spent)
        return float(high - low)


@contextmanager
def cpu_seconds() -> Iterator[CpuSeconds]:
    """Look every INTERVAL seconds for the length of the block."""
    curve, ended = CpuSeconds(), threading.Event()

    def watch() -> None:
        while not ended.is_set():
            curve.look()
            ended.wait(INTERVAL)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield curve
    finally:
        ended.set()
        thread.join()
        curve.look()
