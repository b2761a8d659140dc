"""Meta Pseudo Labels (Pham, Dai, Xie, Luong, Le: Meta pseudo labels, 2021).

1  At every step the teacher labels pool images, the student takes a step on these labels alone, and the teacher learns from how much the
   student's loss on labelled images fell by it, from the labelled images themselves, and from UDA.
2  In the end the student, which never saw a true label, is fine-tuned on the labelled images.
"""

from engine.recipes.context import Generation, RecipeContext


def meta_pseudo_labels(setup: RecipeContext) -> list[Generation]:
    """The student as it was trained, and fine-tuned."""
    settings = setup.settings
    assert settings.finetune is not None, "refused by the settings"
    trained = setup.fit(
        "together fit", settings.teacher_model, settings.teacher, labelled=setup.labelled, pool=setup.pool
    )
    student = Generation("student", trained, [trained], setup.evaluate("student validation", trained, "validation"))
    tuned = setup.fit("finetune fit", settings.teacher_model, settings.finetune, trained, labelled=setup.labelled)
    return [
        student,
        Generation("fine-tuned", tuned, [tuned], setup.evaluate("fine-tuned validation", tuned, "validation")),
    ]
