"""Progress for the user: plain lines through `logging`, readable in a terminal and in the log of a job."""

import logging
import sys
import time

from engine.settings.credentials import hide_credentials

UNITS = ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))

logger = logging.getLogger("engine")


class _StdoutHandler(logging.Handler):
    """Writes to the current `sys.stdout`, which may be replaced after this handler is created."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stdout.write(hide_credentials(f"{self.format(record)}\n"))
        sys.stdout.flush()


def _configure() -> None:
    handler = _StdoutHandler()
    handler.setFormatter(
        logging.Formatter("[%(asctime)s] %(title)-24s %(message)s", "%H:%M:%S", defaults={"title": ""})
    )
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # a handler of the root logger would print every line twice


_configure()


def log_event(title: str, text: str) -> None:
    """Log one line: time, title of the step, text."""
    logger.info("%s", printable(text), extra={"title": printable(title)})


def printable(text: str) -> str:
    """`text` for a terminal: control characters, which may come from names in data, as escapes; line breaks stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def format_duration(seconds: float) -> str:
    """The two largest units: `3 d 4 h`, `1 h 20 min`, `2 min 5 s`, `35 s`."""
    for size, name, smaller_size, smaller_name in UNITS:
        total = round(seconds / smaller_size) * smaller_size  # rounded first: 3,599.6 s are 1 h, not 59 min 60 s
        if total >= size:
            rest = total % size // smaller_size
            return f"{total // size} {name}" + (f" {rest} {smaller_name}" if rest else "")
    return f"{seconds:.0f} s"


class Progress:
    """Counts work and logs, at most once per `every` seconds, done/total, images per second, rejected images and the remaining time.

    >>> progress = Progress("predict", total=10, unit="shards", every=0)
    >>> progress.add(5, images=100)  # doctest: +ELLIPSIS
    [...] predict                  5/10 shards, ...
    """

    def __init__(self, title: str, total: int, unit: str, done: int = 0, every: float = 10.0) -> None:
        self.title, self.total, self.unit, self.every = title, total, unit, every
        self.done = self.resumed = done
        self.images = self.rejected = 0
        self.started = self.last = time.monotonic()
        if done:
            log_event(title, f"{done}/{total} {unit} were done before")

    def add(self, done: int, images: int = 0, rejected: int = 0) -> None:
        """Count `done` units with their images, and log when it is time."""
        self.done += done
        self.images += images
        self.rejected += rejected
        now = time.monotonic()
        if now - self.last >= self.every or self.done == self.total:
            self.last = now
            log_event(self.title, self.line(now - self.started))

    def line(self, seconds: float) -> str:
        """The state after `seconds` of work, as text."""
        rate = (self.done - self.resumed) / seconds if seconds > 0 else 0.0
        rejected = f", {self.rejected:,} rejected" if self.rejected else ""
        images = f", {self.images / seconds:,.0f} images/s" if self.images and seconds > 0 else ""
        left = ""
        if self.done < self.total:
            left = f", {format_duration((self.total - self.done) / rate)} left" if rate > 0 else ", time left unknown"
        return f"{self.done}/{self.total} {self.unit}{images}{rejected}{left}"


class CountProgress:
    """Logs a growing count, at most once per `every` seconds, for work of unknown length."""

    def __init__(self, title: str, what: str, every: float = 5.0) -> None:
        self.title, self.what, self.every = title, what, every
        self.last = time.monotonic()

    def __call__(self, count: int) -> None:
        if time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            log_event(self.title, f"{count:,} {self.what}")
