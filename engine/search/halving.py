"""Which runs go on after a generation: asynchronous successive halving (Li et al.: A System for Massively Parallel Hyperparameter Tuning, 2020).

Every generation from `grace` on is a rung. A trial goes on when it is among the best `keep` of those that have reached its rung so far, itself
included; nobody waits for the others. The rungs are read from the records, so a restored search decides as it would have.
"""

import math
from dataclasses import dataclass

from engine.search.trials import TrialRecord, TrialReport
from engine.settings.search import HalvingSettings


@dataclass(frozen=True)
class HalvingDecision:
    """Whether a trial goes on, and why."""

    goes_on: bool
    reason: str


def decide_halving(
    report: TrialReport, others: list[TrialRecord], settings: HalvingSettings | None, last: int
) -> HalvingDecision:
    """The decision after a trial's `report`. `others`: the cohort's other records, whatever their state;
    `last`: the run's last generation, after which there is nothing to save."""
    if settings is None or report.generation < settings.grace or report.generation >= last:
        return HalvingDecision(True, "no trial is stopped after this generation")
    rung = [one.value for other in others for one in other.reports if one.generation == report.generation]
    better = sum(value > report.value for value in rung)
    kept = math.ceil(settings.keep * (len(rung) + 1))
    reason = f"{better + 1}. of {len(rung) + 1} after generation {report.generation}, the best {kept} continue"
    return HalvingDecision(better < kept, reason)
