"""FixMatch (Sohn et al.: FixMatch: simplifying semi-supervised learning with consistency and confidence, 2020).

At every step, beside a batch of labelled images:
1  Label a weak view of each pool image; keep the labels whose probability reaches the cut.
2  Learn these labels on a strong view of the same image.
The average of the weights is what is tested. Nothing is stored: labels live for one step.
"""

from engine.recipes.context import Generation, RecipeContext


def fixmatch(setup: RecipeContext) -> list[Generation]:
    """One model."""
    settings = setup.settings
    model = setup.fit(
        "fixmatch fit", settings.teacher_model, settings.teacher, labelled=setup.labelled, pool=setup.pool
    )
    return [Generation("fixmatch", model, [model], setup.evaluate("fixmatch validation", model, "validation"))]
