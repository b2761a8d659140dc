"""UDA (Xie, Dai, Hovy, Luong, Le: Unsupervised data augmentation for consistency training, 2019).

At every step, beside a batch of labelled images:
1  Take what the network says of a weak view of each pool image, sharpened, where it is sure enough.
2  Learn these distributions on a strong view of the same image.
It carries most of what Meta Pseudo Labels gains, so it is a recipe of its own.
"""

from engine.recipes.context import Generation, RecipeContext


def uda(setup: RecipeContext) -> list[Generation]:
    """One model."""
    settings = setup.settings
    model = setup.fit("uda fit", settings.teacher_model, settings.teacher, labelled=setup.labelled, pool=setup.pool)
    return [Generation("uda", model, [model], setup.evaluate("uda validation", model, "validation"))]
