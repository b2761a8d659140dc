"""What is seen of a fit while it runs: the last metrics beside the step, trackers, and lines in the driver's log."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.train import Checkpoint, UserCallback

from engine.fit.trackers import Tracking
from engine.ground.progress import format_duration, log_event
from engine.ground.steps import Step

PROGRESS = "progress.json"
FOLLOW_SECONDS = 5.0


class WriteProgress(UserCallback):
    """Writes the last metrics next to the step, where the driver and `status` read them, and passes all of them to the trackers.

    It is called in Ray Train's controller, or in the driver for a local fit.
    """

    def __init__(self, step: Step, tracking: Tracking) -> None:
        self.step, self.tracking = step, tracking

    def write(self, metrics: dict[str, Any]) -> None:
        self.step.put_json(PROGRESS, metrics)
        self.tracking.log(metrics)

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:  # noqa: ARG002
        if "loss" in metrics[0]:
            self.write(metrics[0])


@contextmanager
def show_progress(title: str, step: Step, steps: int) -> Iterator[None]:
    """Log training progress until the block exits; `steps` is the length of the fit."""
    over = threading.Event()

    def follow() -> None:
        last = 0
        while not over.wait(FOLLOW_SECONDS):
            seen = step.read_json(PROGRESS)
            if seen is not None and seen["step"] != last:
                last = seen["step"]
                log_event(title, progress_line(seen, steps))

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        over.set()
        follower.join()


def progress_line(metrics: dict[str, Any], steps: int) -> str:
    """`step 50/200, loss 0.443, 1,214 images/s, 6 s left`."""
    left = (steps - metrics["step"]) * metrics["seconds_per_step"]
    workers = f" with {metrics['workers']} workers" if metrics.get("workers", 1) > 1 else ""
    return (
        f"step {metrics['step']}/{steps}, loss {metrics['loss']:.3f},"
        f" {metrics['images_per_second']:,.0f} images/s{workers}, {format_duration(left)} left"
    )
