"""The baseline that every other recipe has to beat: labels alone."""

from engine.recipes.context import Generation, RecipeContext


def supervised(setup: RecipeContext) -> list[Generation]:
    """One model, trained on the true labels."""
    settings = setup.settings
    model = setup.fit("teacher fit", settings.teacher_model, settings.teacher, labelled=setup.labelled)
    return [Generation("supervised", model, [model], setup.evaluate("teacher validation", model, "validation"))]
