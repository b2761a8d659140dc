"""Robustness on request: the error of a model under common corruptions, one durable step a family and severity."""

import difflib
from collections.abc import Sequence

from engine.evaluate.evaluate import evaluate
from engine.images.collection import Collection
from engine.images.corruptions import FAMILIES, SEVERITIES
from engine.labels.classes import ClassManifest
from engine.run import Run
from engine.settings import PredictSettings
from engine.steps import Output


def robustness(
    run: Run,
    model: Output,
    collection: Collection,
    classes: ClassManifest,
    settings: PredictSettings,
    families: Sequence[str],
    severities: Sequence[int] = SEVERITIES,
) -> dict[str, float]:
    """Share of wrong answers by family, the mean over severities; unlike the published mCE it is not divided by AlexNet's.

    Raises ValueError for an unknown family or severity.
    """
    wanted = list(FAMILIES) if "all" in families else list(families)
    for family in wanted:
        if family not in FAMILIES:
            close = difflib.get_close_matches(family, FAMILIES, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(FAMILIES)}"
            raise ValueError(f"corruptions: {family} is unknown; {hint}")
    if strange := sorted(set(severities) - set(SEVERITIES)):
        raise ValueError(f"severities: {strange[0]} is none; they are 1 to 5")
    return {
        family: sum(
            1 - evaluate(run, f"{family} {at}", model, collection, classes, settings, (family, at)).summary["accuracy"]
            for at in severities
        )
        / len(severities)
        for family in wanted
    }
