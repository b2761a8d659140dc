"""Noisy Student (Xie, Luong, Hovy, Le: Self-training with Noisy Student improves ImageNet classification, 2020; Algorithm 1).

1  Learn a teacher on labelled images, noised.
2  Let the un-noised teacher label the unlabelled images, softly or hardly.
3  Learn an equal-or-larger student on labelled and pseudo-labelled images together, noised: augmentation, dropout, stochastic depth.
4  Make the student the teacher and go back to 2.
"""

from engine.recipes.guard import next_teacher, starved
from engine.recipes.setup import Generation, Setup


def noisy_student(setup: Setup) -> list[Generation]:
    """The teacher and every student, oldest first."""
    settings = setup.settings

    first = setup.fit("teacher fit", settings.teacher_model, settings.teacher, labelled=setup.labelled)
    teacher = Generation("teacher", first, [first], setup.evaluate("teacher validation", first, "validation"))
    generations = [teacher]

    for number in range(1, settings.generations + 1):
        name = f"generation {number}"
        student_model, student_fit = settings.learner(number)
        predictions = setup.predict(f"{name} predict", teacher.model)
        pseudo = setup.select(f"{name} select", predictions, settings.selection(number))
        if starved(name, teacher, pseudo):
            break
        images, _ = stream = setup.gather(f"{name} gather", pseudo)
        start = teacher.model if settings.warm_start else None
        model = setup.fit(f"{name} fit", student_model, student_fit, start, labelled=setup.labelled, pseudo=stream)
        steps = [predictions, pseudo, images, model]
        if settings.finetune is not None:
            model = setup.fit(f"{name} finetune", student_model, settings.finetune, model, labelled=setup.labelled)
            steps.append(model)
        validation = setup.evaluate(f"{name} validation", model, "validation")
        student = Generation(name, model, steps, validation, pseudo=setup.pseudo_quality(pseudo))
        generations.append(student)
        if (successor := next_teacher(setup, number, teacher, student)) is None:
            break
        teacher = successor
    return generations
