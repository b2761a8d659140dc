"""Robustness on request: the error of a model under common corruptions, each family and severity a scope of its own."""

import difflib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from engine.evaluate.evaluate import evaluate, score_of
from engine.ground.run import Run
from engine.ground.steps import Output
from engine.images.corruptions import FAMILIES, SEVERITIES
from engine.images.scope import Scope
from engine.settings.predict import PredictSettings
from engine.tasks.task import Task


def robustness(
    run: Run,
    model: Output,
    scope: Scope,
    task: Task,
    settings: PredictSettings,
    corruptions: Sequence[tuple[str, int]],
) -> dict[str, float]:
    """1 - score per family, the mean over its severities; unlike the published mCE it is not divided by AlexNet's."""
    errors: dict[str, list[float]] = {}
    for family, severity in corruptions:
        corrupted = replace(scope, corruption=(family, severity))
        measured = evaluate(run, f"{family} {severity}", model, corrupted, task, settings)
        errors.setdefault(family, []).append(1 - score_of(measured).value)
    return {family: float(np.mean(values)) for family, values in errors.items()}


def chosen_corruptions(families: Sequence[str], severities: Sequence[int] = SEVERITIES) -> list[tuple[str, int]]:
    """Every severity of every family; `all` stands for the fifteen families. Raises ValueError for an unknown family or severity."""
    wanted = list(FAMILIES) if "all" in families else list(families)
    for family in wanted:
        if family not in FAMILIES:
            close = difflib.get_close_matches(family, FAMILIES, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"Known families: {', '.join(FAMILIES)}."
            raise ValueError(f"corruptions: {family} is unknown. {hint}")
    if unknown := sorted(set(severities) - set(SEVERITIES)):
        raise ValueError(f"severities: {unknown[0]} is unknown. They are 1 to 5.")
    return [(family, severity) for family in wanted for severity in severities]
