"""The learning rate as a pure function of the step, so that a resumed run needs no scheduler state."""

import math

from engine.settings.fit import FitSettings


def learning_rate(settings: FitSettings, step: int) -> float:
    """The rate of step `step`, counted from 0: linear warm-up to `lr`, then the schedule.

    cosine falls to 0 just after the last step; cosine_7_16 is cos(7 pi k / 16 K) (FixMatch, 2020, section 3.1), which ends at 0.2; flat_cosine stays
    for `flat_share` of the steps, then falls as cosine does (fastai's fit_flat_cos); step multiplies by `decay_rate` from each of `decay_steps` on,
    exp after every `decay_every` steps counted from the first (EfficientNet's programs); constant stays.
    """
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    if settings.sched == "cosine":
        share = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
        return settings.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    if settings.sched == "cosine_7_16":
        return settings.lr * math.cos(7 * math.pi * min(step, settings.steps) / (16 * settings.steps))
    if settings.sched == "flat_cosine":
        flat = settings.flat_share * settings.steps
        share = max(0.0, (step - flat) / (settings.steps - flat))
        return settings.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    if settings.sched == "exp":
        assert settings.decay_every is not None, "refused by the settings"
        return settings.lr * settings.decay_rate ** (step // settings.decay_every)
    if settings.sched == "step":
        return settings.lr * settings.decay_rate ** sum(step >= at for at in settings.decay_steps)
    return settings.lr
