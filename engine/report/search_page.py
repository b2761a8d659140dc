"""The page of a search: its figures and tables as one HTML file without scripts, readable in any browser and offline."""

import html

from engine.report.figures import importance_svg, parallel_svg, settings_svg
from engine.report.search_table import saved_sentence
from engine.search.importance import Importance
from engine.search.savings import Saving
from engine.search.search import SearchResult
from engine.search.space import Space

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1e293b; background: #fff }
svg { max-width: 100%; height: auto } table { border-collapse: collapse }
td, th { padding: .2rem .8rem .2rem 0; text-align: left } th { border-bottom: 1px solid #94a3b8 } pre { background: #f1f5f9; padding: 1rem }
"""


def page(
    title: str, found: SearchResult, space: Space, important: list[Importance], saved: list[Saving], yaml: str
) -> str:
    """The whole report as one HTML file; `yaml` are the winner's settings."""
    known = [record for record in found.records if record.value is not None]
    rows = "".join(
        f"<tr><td>{html.escape(row.verb)}</td><td>{row.wanted}</td><td>{row.made}</td>"
        f"<td>{row.seconds_wanted:.0f}</td><td>{row.seconds_made:.0f}</td></tr>"
        for row in saved
    )
    winner = found.winner
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>
<h1>{html.escape(title)}</h1>
<p>{len(found.records)} trials; best: trial {winner.trial.name} with {winner.value or 0:.2%} on validation images (orange star).
Each mark is a trial; a search that looks at the same validation images often flatters its winner: its test result is the one to quote.</p>
<h2>Accuracy against each setting</h2>{settings_svg(space, known, winner)}
<h2>All settings together</h2>{parallel_svg(space, known, winner)}
<h2>Which settings mattered</h2>{_importance(important)}
<h2>Steps shared</h2><table><tr><th>verb</th><th>wanted</th><th>made</th><th>seconds alone</th><th>seconds shared</th></tr>{rows}</table>
<p>{html.escape(saved_sentence(saved))}</p>
<h2>Settings of the best</h2><pre>{html.escape(yaml)}</pre></html>
"""


def _importance(important: list[Importance]) -> str:
    if not important:
        return "<p>too few trials to tell</p>"
    note = "Bars: share of the differences between trials; lines: what a setting without effect would show on average."
    return f"{importance_svg(important)}<p>{note}</p>"
