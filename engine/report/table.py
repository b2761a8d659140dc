"""The table at the end of a run, and the same numbers as JSON."""

import json
from dataclasses import asdict
from typing import Any

from rich.table import Table

from engine.ground import storage
from engine.ground.steps import Output, Store
from engine.metrics.score import Score
from engine.recipes.context import Evaluated
from engine.recipes.control import PoolEffect, RunResult
from engine.recipes.policy import Verdict
from engine.report.console import Console


def metrics(store: Store, result: RunResult) -> dict[str, Any]:
    """Everything that the table shows, a generation a row, ready for JSON."""
    rows = [
        {
            "name": generation.name,
            "validation": _plain(generation.validation),
            "test": _plain(generation.test),
            "pseudo_labels": generation.pseudo.get("kept"),
            "pseudo_correct": generation.pseudo.get("correct"),
            "guard": _guard(generation.guard),
            "seconds": round(sum(seconds(store, output) for output in generation.steps), 1),
            "model": f"{generation.model.folder}/{generation.model.summary['model']}",
            **({"is_network": False} if generation.model.summary.get("kind") == "knn" else {}),
            "steps": [output.step for output in generation.steps],
        }
        for generation in result.generations
    ]
    return {"generations": rows, "chosen": result.chosen, "pool_effect": _effect(result.effect)}


def _effect(effect: PoolEffect | None) -> dict[str, Any] | None:
    """What the pool was worth against the control as plain values; None without a control."""
    if effect is None:
        return None
    test = asdict(effect.test)
    return {"model": effect.model, "on": effect.on, "sentence": effect.sentence, **test}


def _guard(verdict: Verdict | None) -> dict[str, Any] | None:
    """The verdict as flat plain values."""
    if verdict is None:
        return None
    plain = asdict(verdict)
    return plain.pop("decision") | plain


def seconds(store: Store, output: Output) -> float:
    """How long the step took when it was made."""
    return json.loads(storage.get(store.fs, f"{output.folder}/step.json"))["lineage"]["seconds"]


def _plain(evaluated: Evaluated | None) -> dict[str, Any] | None:
    return evaluated.score.to_json() if evaluated else None


def show(report: dict[str, Any], console: Console | None = None) -> None:
    """Print the table: the score with its 95 % interval, pseudo-labels and the share of correct ones, time; then the model to use."""
    scores = [Score.from_json(row[on]) for row in report["generations"] for on in ("validation", "test") if row[on]]
    title = scores[0].title if scores else "score"
    table = Table(title=f"{title[0].upper()}{title[1:]} (%), 95 % confidence interval", title_justify="left")
    for column in ("model", "validation", "test", "pseudo-labels", "correct", "time"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in report["generations"]:
        kept, right = row["pseudo_labels"], row["pseudo_correct"]
        cells = (
            _percent(row["validation"]),
            _percent(row["test"]),
            f"{kept:,}" if kept is not None else "-",
            f"{right:.1%}" if right is not None else "-",
        )
        table.add_row(row["name"], *cells, f"{row['seconds']:.0f} s")
    console = console or Console(width=max(WIDTH, Console().width))
    console.print(table)
    chosen = next(row for row in report["generations"] if row["name"] == report["chosen"])
    path = chosen["model"]
    if effect := report.get("pool_effect"):
        console.print(f"{effect['sentence']}.", markup=False, highlight=False, soft_wrap=True)
    how = (
        f"timm: create_model('local-dir:{path}', pretrained=True)"
        if chosen.get("is_network", True)
        else "its head is head.safetensors in the step's folder"
    )
    console.print(f"Best model: {chosen['name']}, {path} ({how})", markup=False, highlight=False, soft_wrap=True)


WIDTH = 120
"""Columns that the table needs; a job's log has no width of its own."""


def _percent(plain: dict[str, Any] | None) -> str:
    if plain is None:
        return "-"
    score = Score.from_json(plain)
    return f"{100 * score.value:.2f} [{100 * score.low:.2f}, {100 * score.high:.2f}]"
