"""What a run leaves for people when it ends: its page and the cards of its models. It never fails the run."""

import time

from engine.ground.progress import log_event
from engine.ground.run import Run
from engine.report.model_card import write_model_cards
from engine.report.page.attempt import attempt
from engine.report.page.page import page_of
from engine.report.page.render import render_page, size
from engine.report.page.source import read_record
from engine.report.page.thumbnails import PictureBudget
from engine.settings.run import ReportSettings

PAGE = "report.html"


def publish(run: Run, settings: ReportSettings) -> str | None:
    """Write report.html into the folder of the run and README.md into those of its models; returns the page's URI.

    None where the settings want no page, and where it could not be made, which is logged: the results of the run are stored before.
    """
    if not settings.page:
        return None
    page, cards = (
        attempt(_write_page, run, settings),
        attempt(lambda: write_model_cards(read_record(run.store, run.name))),
    )
    for what, part in (("page", page), ("model cards", cards)):
        if part.problem is not None:
            again = f"The results are stored. Try again: python -m jobs.report {run.store.uri} {run.name}"
            log_event("report", f"{what} {part.problem}. {again}")
    return page.value


def _write_page(run: Run, settings: ReportSettings) -> str:
    started = time.time()
    page = page_of(read_record(run.store, run.name), PictureBudget(settings.picture_seconds))
    text = render_page(page).encode()
    written = run.put(PAGE, text)
    log_event("report", f"{written} ({size(len(text))}, {time.time() - started:.1f} s)")
    return written
