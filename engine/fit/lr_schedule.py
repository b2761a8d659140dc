"""The learning rate as a pure function of the step, so that a resumed run needs no scheduler state."""

import math

from engine.settings.fit import FitSettings


def learning_rate(settings: FitSettings, step: int) -> float:
    """The rate of step `step`, counted from 0: linear warm-up to `lr`, then the schedule.

    cosine falls to 0 just after the last step; step multiplies by `decay_rate` from each of `decay_steps` on; constant
    stays.
    """
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    if settings.sched == "cosine":
        share = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
        return settings.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    if settings.sched == "step":
        return settings.lr * settings.decay_rate ** sum(step >= at for at in settings.decay_steps)
    return settings.lr
