"""Weak supervision with hashtags (Mahajan et al.: Exploring the limits of weakly supervised pretraining, 2018), and what Yalniz et al. 2019 made of
it: semi-weakly supervised learning.

1  Bring the tags of the pool's images to one name each through synonyms; k tags are a target of k entries of 1/k.
2  Draw images of rare tags more often, and learn the tags.
3  Transfer: learn the labels from there, the whole network or a classifier on its frozen features.

Semi-weakly supervised: what comes out is only the teacher. Its students never see a tag: they are those of the billion-scale recipe.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from engine.recipes.billion_scale import Pairs
from engine.recipes.context import Generation, RecipeContext
from engine.recipes.recipe import Recipe
from engine.recipes.tagging import TagSettings, gather_tags
from engine.settings.fit import FitSettings
from engine.settings.recipe import Need
from engine.settings.run import RunSettings


class Tagged(Recipe):
    """A teacher that learned the pool's tags, then the labels."""

    tags: TagSettings = Field(description="tags of the pool's images")
    transfer: Literal["full", "frozen"] = Field(
        "full", description="part that learns the labels: the full network, or a classifier on its frozen features"
    )

    def needs(self, run: RunSettings) -> Iterator[Need]:
        yield run.data.pool is None, "labels a pool: set data.pool"
        yield (
            getattr(self, "teacher", None) is not None,
            "makes its own teacher from the tags: leave recipe.teacher out",
        )
        yield (
            run.fits.tagging is None or set(run.fits.tagging.batch) != {"tags"},
            "learns the tags before the labels: set fits.tagging, with batch={tags: …}",
        )
        yield from super().needs(run)

    def fits(self, run: RunSettings) -> list[FitSettings]:
        assert run.fits.tagging is not None, "refused by the settings"
        return [run.fits.tagging, *super().fits(run)]

    def tag_teacher(self, setup: RecipeContext) -> Generation:
        """The model that learned the tags, then the labels."""
        model, fits = setup.settings.models.teacher, setup.settings.fits
        assert fits.tagging is not None, "refused by the settings"
        vocabulary, targets, stream = gather_tags(setup, self.tags)
        weak = setup.fit("tags fit", model, fits.tagging, classes=vocabulary, tags=stream)
        transfer = fits.teacher
        if self.transfer == "frozen":
            transfer = transfer.model_copy(update={"freeze_steps": transfer.steps})
        final = setup.fit("transfer fit", model, transfer, weak, labelled=setup.labelled)
        validation = setup.evaluate("transfer validation", final, "validation")
        return Generation("hashtags", model, final, [targets, stream.output, weak, final], validation)


class Hashtags(Tagged):
    """Weak supervision with hashtags."""

    name: Literal["hashtags"] = Field("hashtags", description="the recipe")

    def train(self, setup: RecipeContext) -> list[Generation]:
        """The model that learned the tags, then the labels."""
        return [self.tag_teacher(setup)]


class SemiWeaklySupervised(Tagged, Pairs):
    """A hashtag teacher and the students of the billion-scale recipe."""

    name: Literal["semi_weakly_supervised"] = Field("semi_weakly_supervised", description="the recipe")

    def train(self, setup: RecipeContext) -> list[Generation]:
        """The hashtag teacher and every student, oldest first."""
        teacher = self.tag_teacher(setup)
        return [teacher, *self.students(setup, teacher)]
