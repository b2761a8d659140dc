"""Weakly supervised mapping (Bonafilia, Gill, Basu, Yang: Building high resolution maps for humanitarian aid and development with weakly- and
semi-supervised learning, 2019; Facebook: Mapping roads through deep learning and weakly supervised training, 2019).

1  Learn a model on weak labels: masks drawn from map vectors of one width (`jobs.rasterise`), or tiles that do or do not contain a mapped feature.
   A map is incomplete and misplaced, and both average out.
2  Let it label the tiles without a map, take what it is sure of, and learn weak and pseudo-labels together; repeat.
3  Fine-tune on the few exact labels (`data.exact`).

Validation and test tiles have exact labels, and lie in other blocks of the map than those that are trained on (`split` of `jobs.rasterise`).
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from engine.recipes.context import Generation, RecipeContext
from engine.recipes.control import last_kept
from engine.recipes.guard import judge_successor
from engine.recipes.recipe import first_teacher
from engine.recipes.threshold import Rounds
from engine.settings.fit import FitSettings
from engine.settings.model import ModelSettings
from engine.settings.recipe import Need
from engine.settings.run import RunSettings


class Mapping(Rounds):
    """Weakly supervised mapping."""

    name: Literal["mapping"] = Field("mapping", description="the recipe")

    def needs(self, run: RunSettings) -> Iterator[Need]:
        yield (
            (run.data.exact is None) != (run.fits.finetune is None),
            "fine-tunes on exact labels: set data.exact and fits.finetune, or neither to end with the weak and pseudo-labels",
        )
        yield (
            run.fits.finetune is not None and set(run.fits.finetune.batch) != {"labelled"},
            "fine-tunes on exact labels alone: set fits.finetune with batch={labelled: …}",
        )
        yield from super().needs(run)

    @property
    def num_judged(self) -> int:
        return self.num_generations + 1

    def fits(self, run: RunSettings) -> list[FitSettings]:
        return [*super().fits(run), *([run.fits.finetune] if run.fits.finetune is not None else [])]

    def final_fits(self, run: RunSettings) -> tuple[ModelSettings, list[FitSettings]]:
        model, fits = super().final_fits(run)
        return model, [*fits, *([run.fits.finetune] if run.fits.finetune is not None else [])]

    def train(self, setup: RecipeContext) -> list[Generation]:
        """The model of the weak labels, every student, and the last one that was kept fine-tuned on exact labels."""
        teacher = first_teacher(setup, "weak")
        generations = [teacher, *self.rounds(setup, teacher, setup.labelled)]
        if (finetune := setup.settings.fits.finetune) is not None:
            start = last_kept(generations, setup.control)
            exact = setup.true_labels("exact")
            model = setup.fit("exact finetune", start.network, finetune, start.model, labelled=exact)
            validation = setup.evaluate("exact validation", model, "validation")
            tuned = Generation("fine-tuned", start.network, model, [exact.output, model], validation)
            judge_successor(setup, start, tuned)
            generations.append(tuned)
        return generations
