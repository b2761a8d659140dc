"""What a search found, as tables for a terminal and as plain values for JSON."""

from dataclasses import asdict
from typing import Any

from rich.table import Table

from engine.report.console import Console
from engine.report.table import WIDTH
from engine.search.importance import Importance
from engine.search.savings import Saving
from engine.search.search import SearchResult


def plain(found: SearchResult, important: list[Importance], saved: list[Saving]) -> dict[str, Any]:
    """Everything that the tables show, ready for JSON."""
    return {
        "winner": found.winner.trial.name,
        "validation": found.winner.value,
        "schedule": found.winner.trial.schedule,
        "values": found.winner.trial.values,
        "trials": [asdict(record) for record in found.records],
        "importance": [asdict(one) for one in important],
        "sharing": [asdict(row) for row in saved],
    }


def show(found: SearchResult, important: list[Importance], saved: list[Saving], console: Console | None = None) -> None:
    """Print the trials, the winner's schedule, which settings mattered, and what sharing saved."""
    console = console or Console(width=max(WIDTH, Console().width))
    paths = list(dict.fromkeys(path for record in found.records for path in record.trial.values))
    trials = Table(title="trials: score in % on validation images after each generation", title_justify="left")
    for column in ("trial", "teacher", *paths, "score", "state"):
        trials.add_column(column, overflow="fold")
    for record in found.records:
        trial = record.trial
        teacher = "-" if trial.parent is None else f"{trial.cohort - 1}-{trial.parent:03d}"
        course = "  ".join(f"{100 * report.value:.2f}" for report in record.reports) or "-"
        mark = " *" if record == found.winner else ""
        trials.add_row(
            trial.name + mark, teacher, *(str(trial.values.get(p, "-")) for p in paths), course, record.state
        )
    console.print(trials)
    if found.winner.trial.schedule is not None:
        schedule = Table(title="schedule of the best (*)", title_justify="left")
        for column in ("generation", *paths):
            schedule.add_column(column, overflow="fold")
        for number, values in enumerate(found.winner.trial.schedule, 1):
            schedule.add_row(str(number), *(str(values.get(path, "-")) for path in paths))
        console.print(schedule)
    if important:
        mattered = Table(title="which settings mattered: share of the differences between trials", title_justify="left")
        for column in ("setting", "share", "by chance", "trials"):
            mattered.add_column(column, justify="left" if column == "setting" else "right")
        for one in important:
            mattered.add_row(one.path, f"{one.share:.0%}", f"{one.chance:.0%}", str(one.trials))
        console.print(mattered)
    sharing = Table(title="steps shared", title_justify="left")
    for column in ("verb", "wanted", "made", "seconds alone", "seconds shared"):
        sharing.add_column(column, justify="left" if column == "verb" else "right")
    for row in saved:
        sharing.add_row(
            row.verb, str(row.wanted), str(row.made), f"{row.seconds_wanted:.0f}", f"{row.seconds_made:.0f}"
        )
    console.print(sharing)
    console.print(saved_sentence(saved), markup=False, highlight=False)


def saved_sentence(saved: list[Saving]) -> str:
    """What sharing was worth, in one line."""
    alone, together = sum(row.seconds_wanted for row in saved), sum(row.seconds_made for row in saved)
    share = 1 - together / alone if alone else 0.0
    return f"sharing steps saved {alone - together:.0f} of {alone:.0f} seconds of steps ({share:.0%})"
