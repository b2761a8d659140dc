"""An iterator that cannot hang for ever: its items are drawn in a thread, and the caller waits for each only so long."""

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

from engine.ground.failures import StalledError, stall_reason

Item = TypeVar("Item")
PATIENCE = 30.0
"""Seconds given to a source to stop when the caller has had enough."""


def with_stall_timeout(source: Iterator[Item], stall_minutes: float) -> Generator[Item]:
    """The items of `source`. Raises StalledError when the next one takes longer than `stall_minutes`, and whatever `source` raises.

    Close it to stop early: the source, if it is a generator, is then closed at its next item, in the thread that draws from it.
    """
    arrived: queue.SimpleQueue[tuple[str, object]] = queue.SimpleQueue()
    stop = threading.Event()

    def draw() -> None:
        try:
            for item in source:
                arrived.put(("item", item))
                if stop.is_set():
                    break
            if isinstance(source, Generator):
                source.close()
            arrived.put(("end", None))
        except BaseException as error:  # carried to the caller's thread, whatever it is
            arrived.put(("error", error))

    thread = threading.Thread(target=draw, name="watched", daemon=True)
    thread.start()
    hung = False
    try:
        while True:
            try:
                kind, value = arrived.get(timeout=60 * stall_minutes)
            except queue.Empty:
                hung = True
                raise StalledError(stall_reason(60 * stall_minutes, stall_minutes)) from None
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(value, BaseException)
                raise value
            yield value  # type: ignore[misc]
    finally:
        stop.set()
        thread.join(0 if hung else PATIENCE)
