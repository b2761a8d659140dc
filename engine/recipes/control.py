"""The control: the final network, learned from the labels alone with as many images and steps. It tells whether the pool helped."""

from dataclasses import dataclass

from engine.evaluate.evaluate import rows_of
from engine.ground.progress import log_event
from engine.ground.steps import read_output
from engine.metrics.paired import PairedTest
from engine.recipes.context import CONTROL, Evaluated, Generation, RecipeContext
from engine.recipes.policy import points
from engine.settings.fit import FitSettings

OWN_TARGETS = ("supervised", "segmentation")
"""Objectives that learn labels alone; every other one is replaced."""


@dataclass(frozen=True)
class RunResult:
    """The models of a run, the one to use, and what the pool was worth."""

    generations: list[Generation]
    """The control first where there is one, then oldest first."""
    chosen: str
    """Name of the model to use."""
    effect: "PoolEffect | None" = None


@dataclass(frozen=True)
class PoolEffect:
    """The last model that its guard did not reject against the control, on the same images."""

    model: str
    on: str
    """Collection that both were evaluated on: test, else validation."""
    test: PairedTest

    @property
    def sentence(self) -> str:
        """*The pool helped*, *it hurt*, or *no difference is shown*, with the difference and the images that it stands on."""
        difference, level, images = self.test.difference, self.test.level, f"{self.test.images:,} {self.on} images"
        if not self.test.significant:
            return f"No difference is shown between {self.model} and the labels alone: {points(difference, level)}, {images}"
        if difference.value > 0:
            return f"The pool helped: {self.model} is better than the labels alone by {points(difference, level)}, {images}"
        return f"The pool hurt: {self.model} is worse than the labels alone by {points(-difference, level)}, {images}"


def labels_alone(fit: FitSettings) -> FitSettings:
    """A fit of as many images and steps that draws true labels only."""
    noise = fit.noise.get("labelled") or next(iter(fit.noise.values()), None)
    changes = {
        "batch": {"labelled": sum(fit.batch.values())},
        "stream_weight": {},
        "noise": {} if noise is None else {"labelled": noise},
    }
    if fit.objective not in OWN_TARGETS:
        changes |= {"objective": "supervised", "objective_args": {}}
    return fit.model_copy(update=changes)


def train_control(setup: RecipeContext) -> Generation | None:
    """The control of a run; None where it was not asked for."""
    if setup.settings.recipe.control == "none":
        return None
    network, fits = setup.settings.recipe.final_fits(setup.settings)
    model, steps = None, []
    for number, fit in enumerate(fits):
        name = f"{CONTROL} fit" if number == 0 else f"{CONTROL} finetune"
        model = setup.fit(name, network, labels_alone(fit), model, pretext=False, labelled=setup.labelled)
        steps.append(model)
    assert model is not None, "every recipe fits its final model"
    return Generation(CONTROL, network, model, steps, setup.evaluate(f"{CONTROL} validation", model, "validation"))


def choose(setup: RecipeContext, generations: list[Generation]) -> Generation:
    """The model to use, by validation images alone: the last one, or what was kept instead of it; the control where it is significantly better."""
    candidate, control = last_kept(generations, setup.control), setup.control
    if control is None or candidate is control:
        return candidate
    test = compare_evaluated(setup, control.validation, candidate.validation)
    worse = test is not None and test.significant and test.difference.value < 0
    return control if worse and setup.settings.guard.enabled else candidate


def last_kept(generations: list[Generation], control: Generation | None = None) -> Generation:
    """The last generation that its guard did not reject, or what was kept instead."""
    named = {one.name: one for one in [*generations, *([control] if control is not None else [])]}
    one = generations[-1]
    while one.guard is not None and one.guard.rejects:
        assert one.guard.kept is not None, "a rejected model names the one that is kept"
        one = named[one.guard.kept]
    return one


def measure_effect(setup: RecipeContext, generations: list[Generation]) -> PoolEffect | None:
    """What the pool was worth: the last model that was not rejected for another generation's sake, against the control. None without a control, or
    images to compare on.
    """
    control = setup.control
    if control is None:
        return None
    kept = last_kept(generations, control)
    candidate = generations[-1] if kept is control else kept
    for on, first, second in (
        ("test", control.test, candidate.test),
        ("validation", control.validation, candidate.validation),
    ):
        if (test := compare_evaluated(setup, first, second)) is not None:
            effect = PoolEffect(candidate.name, on, test)
            log_event("control", effect.sentence)
            return effect
    return None


def compare_evaluated(setup: RecipeContext, first: Evaluated | None, second: Evaluated | None) -> PairedTest | None:
    """The paired test of two evaluations of one collection; None when either is missing."""
    if first is None or second is None:
        return None
    outputs = [read_output(setup.run.store, one.step) for one in (first, second)]
    rows = [rows_of(one, setup.run) for one in outputs if one is not None]
    return setup.task.measure.paired(rows[0], rows[1], setup.settings.guard.level)
