"""What a person sees while a step works: plain lines, readable in a terminal and in a job's log."""

import sys
import time


def log_event(label: str, text: str) -> None:
    """One line, at once."""
    print(f"[{time.strftime('%H:%M:%S')}] {label:<24} {text}", flush=True, file=sys.stdout)


class Progress:
    """Counts work and says, every `every` seconds, done/total, images a second, rejects and the time left.

    >>> progress = Progress("predict", total=10, unit="shards", every=0)
    >>> progress.add(5, images=100)  # doctest: +ELLIPSIS
    [...] predict                  5/10 shards, ...
    """

    def __init__(self, label: str, total: int, unit: str, done: int = 0, every: float = 10.0) -> None:
        self.label, self.total, self.unit, self.every = label, total, unit, every
        self.done = self.resumed = done
        self.images = self.rejected = 0
        self.started = self.last = time.monotonic()
        if done:
            log_event(label, f"{done}/{total} {unit} were done before")

    def add(self, done: int, images: int = 0, rejected: int = 0) -> None:
        self.done += done
        self.images += images
        self.rejected += rejected
        now = time.monotonic()
        if now - self.last >= self.every or self.done == self.total:
            self.last = now
            log_event(self.label, self.line(now - self.started))

    def line(self, seconds: float) -> str:
        """The state after `seconds` of work, as text."""
        rate = (self.done - self.resumed) / seconds if seconds > 0 else 0.0
        left = f"{_duration((self.total - self.done) / rate)} left" if rate > 0 else "time left unknown"
        rejected = f", {self.rejected} rejected" if self.rejected else ""
        images = f", {self.images / seconds:.0f} images/s" if self.images and seconds > 0 else ""
        return f"{self.done}/{self.total} {self.unit}{images}{rejected}, {left}"


class CountProgress:
    """Says a growing count now and then, for work whose end is not known."""

    def __init__(self, label: str, what: str, every: float = 5.0) -> None:
        self.label, self.what, self.every = label, what, every
        self.last = time.monotonic()

    def __call__(self, count: int) -> None:
        if time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            log_event(self.label, f"{count} {self.what}")


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"
