"""fastai-style pseudo-labelling (Flath: Pseudo labelling for data cleaning; fast.ai): find and correct wrong labels, then grow the set.

1  Split the labelled images into folds; for each fold learn a model on the others and let it label the fold. So every image is judged by a model
   that never saw it: one that did has memorised its wrong label.
2  List the images whose label is denied, the most confident first: for review, or relabelled above a threshold.
3  Learn from the cleaned set.
4  With a pool: label it, add what is above a threshold, learn again.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from engine.recipes.cleaning import CleanOptions, audit_labels, fold_of, gather_cleaned, publish, subset
from engine.recipes.context import Generation, RecipeContext
from engine.recipes.guard import judge_successor
from engine.recipes.threshold import Rounds, cuts
from engine.settings.fit import FitSettings
from engine.settings.recipe import Need
from engine.settings.run import RunSettings


class CleanLabels(Rounds, CleanOptions):
    """fastai-style cleaning of labels."""

    name: Literal["clean_labels"] = Field("clean_labels", description="the recipe")

    def needs_of_students(self, run: RunSettings) -> Iterator[Need]:
        yield self.teacher is not None, "judges labels by models that never saw them: leave recipe.teacher out"
        yield run.data.pool is not None and run.fits.student is None, "trains students on the pool: set fits.student"
        if run.data.pool is not None:
            yield from cuts(run)

    @property
    def num_judged(self) -> int:
        return self.num_generations + 1

    def is_selecting(self, run: RunSettings) -> bool:
        return super().is_selecting(run) and run.data.pool is not None

    def fits(self, run: RunSettings) -> list[FitSettings]:
        students = self.student_fits(run) if run.data.pool is not None else []
        return [*[run.fits.teacher] * (self.folds + 2), *students]

    def train(self, setup: RecipeContext) -> list[Generation]:
        """The model of the labels as given, that of the cleaned ones, and those that learned from the pool, too."""
        settings = setup.settings
        fold = fold_of(setup, self)

        answers = []
        for number in range(self.folds):
            name = f"fold {number}"
            seen, unseen = subset(setup, fold != number), subset(setup, fold == number)
            others = setup.labelled_of(f"{name} gather", seen)
            judge = setup.fit(f"{name} fit", settings.models.teacher, settings.fits.teacher, labelled=others)
            answers.append(setup.predict(f"{name} predict", judge, on="labelled", only=unseen))
        audited = audit_labels(setup, self, answers, fold)
        publish(setup, self, audited)

        network = settings.models.teacher
        given = setup.fit("as given fit", network, settings.fits.teacher, labelled=setup.labelled)
        validation = setup.evaluate("as given validation", given, "validation")
        as_given = Generation("as given", network, given, [given], validation)
        stream = gather_cleaned(setup, self, audited)
        model = setup.fit("clean fit", network, settings.fits.teacher, labelled=stream)
        validation = setup.evaluate("clean validation", model, "validation")
        clean = Generation("clean", network, model, [*answers, audited, stream.output, model], validation)
        better = judge_successor(setup, as_given, clean)
        learned = stream if better is clean else setup.labelled
        grown = self.rounds(setup, better, learned) if settings.data.pool is not None else []
        return [as_given, clean, *grown]
