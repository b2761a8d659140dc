"""A probe on the frozen features of a pretrained network, and rounds of self-training in seconds.

Labels, then pseudo-labels, teach a linear classifier on features that never change: Lee's Pseudo-Label (2013) with rounds of seconds.
Instead of the probe: prototypes (Wang et al.: SimpleShot, 2019), or nearest neighbours.

0  Embed the labelled images, the validation and test images and the pool once.
1  Fit a head on the features of the labelled images.
2  Predict the pool from the cache, select, and fit the head again on true and pseudo-labels. Repeat: no round reads a pixel.
3  What is saved is a network: the backbone with the head as its classifier.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from engine.embed.backbone import make_backbone
from engine.embed.pipeline import embed
from engine.embed.statistics import find_scaling
from engine.ground.steps import Output
from engine.models.imported import find_model
from engine.probe.fit import HeadSpec, LabelledFeatures, PseudoFeatures, fit_head
from engine.recipes.context import Generation, RecipeContext
from engine.recipes.guard import next_teacher, stop_without_labels
from engine.recipes.recipe import GenerationalRecipe
from engine.settings.embed import EmbedSettings
from engine.settings.fit import FitSettings
from engine.settings.probe import HeadSettings
from engine.settings.recipe import Need
from engine.settings.run import RunSettings


class Probe(GenerationalRecipe):
    """A head on frozen features."""

    implied: ClassVar[dict[str, Any]] = {"fits": {"teacher": {"steps": 1, "batch": {"labelled": 2520}}}}

    name: Literal["probe"] = Field("probe", description="the recipe")
    backbone: str | None = Field(
        None,
        description="model folder or fitted step with the weights of models.teacher, which stay as they are (default: timm's,"
        " with models.teacher.pretrained)",
    )
    embed: EmbedSettings = Field(EmbedSettings(), description="features of the network")
    head: HeadSettings = Field(HeadSettings(), description="what learns on the features")

    def needs(self, run: RunSettings) -> Iterator[Need]:
        yield (
            self.control != "none",
            "is compared with its first head, which learned the labels alone: leave recipe.control out",
        )
        yield (
            self.teacher is not None,
            "begins with a head of its own: set recipe.backbone, and leave recipe.teacher out",
        )
        yield run.task != "classify", "learns one class per image: set task=classify"
        yield (
            self.backbone is None and not run.models.teacher.pretrained,
            "needs a pretrained network: set recipe.backbone to a model folder, or models.teacher.pretrained=true for timm's weights",
        )
        yield (
            run.predict.views != "one",
            "predicts from the features of one view: leave out predict.views",
        )
        yield from super().needs(run)

    def needs_of_students(self, run: RunSettings) -> Iterator[Need]:
        yield run.data.pool is None, "labels a pool: set data.pool"

    def fits(self, run: RunSettings) -> list[FitSettings]:  # noqa: ARG002
        """None that Ray Train would make."""
        return []

    def train(self, setup: RecipeContext) -> list[Generation]:
        """The head of the true labels and those of every round, oldest first."""
        caches, backbone, spec = self.embedded(setup)
        network = setup.settings.models.teacher
        first = fit_head(setup.run, "teacher fit", spec)
        score = setup.evaluate("teacher validation", first, "validation")
        teacher = Generation("teacher", network, first, [backbone, *caches.values(), first], score)
        generations = [teacher]
        for number in range(1, self.generations + 1):
            name = f"round {number}"
            predictions = setup.predict(f"{name} predict", teacher.model)
            pseudo = setup.select(f"{name} select", predictions, self.selection(setup.settings, number))
            if stop_without_labels(name, teacher, pseudo):
                break
            chosen = PseudoFeatures(caches["pool"], setup.arranged(f"{name} gather", pseudo))
            model = fit_head(setup.run, f"{name} fit", spec.with_pseudo(chosen))
            quality = setup.pseudo_quality(f"{name} gather", pseudo)
            score = setup.evaluate(f"{name} validation", model, "validation")
            student = Generation(name, network, model, [predictions, pseudo, model], score, pseudo=quality)
            generations.append(student)
            if (successor := next_teacher(setup, number, teacher, student)) is None:
                break
            teacher = successor
        return generations

    def embedded(self, setup: RecipeContext) -> tuple[dict[str, Output], Output, HeadSpec]:
        """The cache of every collection, the network of them, and what the first head learns."""
        run, settings = setup.run, setup.settings
        weights = None if self.backbone is None else find_model(run, self.backbone, as_init=True)
        backbone = make_backbone(run, settings.models.teacher, weights)
        caches = {name: embed(run, backbone, setup.scope(name), self.embed) for name in setup.collections}
        scaled = "pool" if "pool" in caches else "labelled"
        labelled = {
            name: LabelledFeatures(caches[name], setup.collections[name])
            for name in ("labelled", "validation")
            if name in caches
        }
        spec = HeadSpec(
            self.head,
            setup.classes,
            backbone,
            self.embed,
            labelled["labelled"],
            find_scaling(run, f"scale {scaled}", caches[scaled]),
            labelled.get("validation"),
        )
        return caches, backbone, spec
