"""What the self-supervised recipes share: a pretext on raw images, then the labels, from its weights."""

from engine.recipes.context import Generation, RecipeContext


def fine_tune(setup: RecipeContext) -> list[Generation]:
    """The model that learned the labels starting from the pretext's weights.

    Its settings hold the protocol: `freeze_steps` for the head alone, `layer_decay` for lower rates in early layers.
    The control, the same fit from random weights, is recipe `supervised` without `pretext`.
    """
    pretext = setup.pretext
    assert pretext is not None, "refused by the settings"
    settings = setup.settings
    model = setup.fit("fine-tune fit", settings.teacher_model, settings.teacher, pretext, labelled=setup.labelled)
    validation = setup.evaluate("fine-tune validation", model, "validation")
    return [Generation("fine-tuned", model, [pretext, model], validation)]
