"""Billion-scale semi-supervised learning (Yalniz, Jégou, Chen, Paluri, Mahajan: Billion-scale semi-supervised learning for image
classification, 2019).

1  Learn a teacher on labelled images.
2  Let it label the pool; of every image only its P best classes count.
3  For each class take the K images that rank highest in it: pairs of image and class, the same number for every class.
4  Learn a student from scratch on the pairs alone.
5  Fine-tune it on the true labels alone.

P above 1 is for rare classes: they seldom win an image, yet an image's fifth class may be that class's best example.
"""

from engine.recipes.context import Generation, RecipeContext
from engine.recipes.guard import next_teacher, stop_without_labels


def billion_scale(setup: RecipeContext) -> list[Generation]:
    """The teacher and every student, oldest first."""
    settings = setup.settings
    first = setup.fit("teacher fit", settings.teacher_model, settings.teacher, labelled=setup.labelled)
    teacher = Generation("teacher", first, [first], setup.evaluate("teacher validation", first, "validation"))
    return [teacher, *students(setup, teacher)]


def students(setup: RecipeContext, teacher: Generation) -> list[Generation]:
    """Steps 2 to 5, `generations` times; once in the paper."""
    settings = setup.settings
    finetune = settings.finetune
    assert finetune is not None, "refused by the settings"
    made: list[Generation] = []
    for number in range(1, settings.generations + 1):
        name = f"generation {number}"
        model, student_fit = settings.learner(number)
        predictions = setup.predict(f"{name} predict", teacher.model)
        pairs = setup.select(f"{name} select", predictions, settings.selection(number))
        if stop_without_labels(name, teacher, pairs):
            break
        images, _ = stream = setup.gather(f"{name} gather", pairs)
        pretrained = setup.fit(f"{name} fit", model, student_fit, pseudo=stream)
        tuned = setup.fit(f"{name} finetune", model, finetune, pretrained, labelled=setup.labelled)
        validation = setup.evaluate(f"{name} validation", tuned, "validation")
        steps = [predictions, pairs, images, pretrained, tuned]
        student = Generation(name, tuned, steps, validation, pseudo=setup.pseudo_quality(pairs))
        made.append(student)
        if (successor := next_teacher(setup, number, teacher, student)) is None:
            break
        teacher = successor
    return made
