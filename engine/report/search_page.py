"""The page of a search: its trials, figures and tables as one HTML file in the frame of all pages, readable in any browser and offline."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.report.figures import importance_svg, parallel_svg, settings_svg
from engine.report.page.render import render
from engine.report.search_table import saved_sentence
from engine.search.importance import Importance
from engine.search.savings import Saving
from engine.search.search import SearchResult
from engine.search.space import Space


@dataclass(frozen=True)
class TrialRow:
    """One trial. `values` in the order of the page's paths; `scores` after each generation, in %."""

    name: str
    teacher: str
    values: tuple[str, ...]
    scores: str
    state: str
    is_best: bool


@dataclass(frozen=True)
class SearchPage:
    """All that the template shows; figures as SVG, `bars` None where there are too few trials."""

    sentence: str
    paths: tuple[str, ...]
    trials: tuple[TrialRow, ...]
    scatters: str
    parallel: str
    bars: str | None
    saved: tuple[Saving, ...]
    saving: str
    yaml: str


def page(
    title: str, found: SearchResult, space: Space, important: list[Importance], saved: list[Saving], yaml: str
) -> str:
    """The whole report as one HTML file; `yaml` are the winner's settings."""
    known, winner = [record for record in found.records if record.value is not None], found.winner
    paths = tuple(dict.fromkeys(path for record in found.records for path in record.trial.values))
    values = SearchPage(
        f"{len(found.records)} trials; best: trial {winner.trial.name} with {winner.value or 0:.2%} on validation images.",
        paths,
        trial_rows(found, paths),
        settings_svg(space, known, winner),
        parallel_svg(space, known, winner),
        importance_svg(important) if important else None,
        tuple(saved),
        saved_sentence(saved),
        yaml,
    )
    return render("search.html", title, it=values)


def trial_rows(found: SearchResult, paths: Sequence[str]) -> tuple[TrialRow, ...]:
    """A row for each trial, the best first, those without a score last."""
    ordered = sorted(found.records, key=lambda record: -1.0 if record.value is None else record.value, reverse=True)
    return tuple(
        TrialRow(
            record.trial.name,
            "-" if record.trial.parent is None else f"{record.trial.cohort - 1}-{record.trial.parent:03d}",
            tuple(str(record.trial.values.get(path, "-")) for path in paths),
            ", ".join(f"{100 * report.value:.2f}" for report in record.reports) or "-",
            record.state,
            record == found.winner,
        )
        for record in ordered
    )
