"""Weak supervision with hashtags (Mahajan et al.: Exploring the limits of weakly supervised pretraining, 2018), and what Yalniz et al. 2019 made of
it: semi-weakly supervised learning.

1  Bring the tags of the pool's images to one name each through synonyms; k tags are a target of k entries of 1/k.
2  Draw images of rare tags more often, and learn the tags.
3  Transfer: learn the labels from there, the whole network or a classifier on its frozen features.

Semi-weakly supervised: what comes out is only the teacher. Its students never see a tag: they are those of the billion-scale recipe.
"""

from engine.recipes.billion_scale import students
from engine.recipes.context import Generation, RecipeContext
from engine.recipes.tagging import gather_tags


def hashtags(setup: RecipeContext) -> list[Generation]:
    """The model that learned the tags, then the labels."""
    settings = setup.settings
    assert settings.tags is not None, "refused by the settings"
    assert settings.tagging is not None, "refused by the settings"
    vocabulary, targets, stream = gather_tags(setup, settings.tags)
    weak = setup.fit("tags fit", settings.teacher_model, settings.tagging, classes=vocabulary, tags=stream)
    transfer = settings.teacher
    if settings.tags.transfer == "frozen":
        transfer = transfer.model_copy(update={"freeze_steps": transfer.steps})
    model = setup.fit("transfer fit", settings.teacher_model, transfer, weak, labelled=setup.labelled)
    validation = setup.evaluate("transfer validation", model, "validation")
    return [Generation("hashtags", model, [targets, stream[0], weak, model], validation)]


def semi_weakly_supervised(setup: RecipeContext) -> list[Generation]:
    """The hashtag teacher and every student, oldest first."""
    (teacher,) = hashtags(setup)
    return [teacher, *students(setup, teacher)]
