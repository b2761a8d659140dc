"""Confidence-threshold pseudo-labelling (Lee: Pseudo-Label, 2013; the fastai tradition; scikit-learn's SelfTrainingClassifier).

Label the pool, keep what the teacher is sure of, learn from true and pseudo-labels together, repeat.

Two label policies, named as METHODS names them: *everything* (each round labels the whole pool anew) and *sticky* (scikit-learn: a label once
accepted never changes, rounds only add to it).
"""

from engine.ground.steps import Output
from engine.recipes.context import Generation, RecipeContext, Stream
from engine.recipes.guard import next_teacher, stop_without_labels


def threshold(setup: RecipeContext) -> list[Generation]:
    """The teacher and every student, oldest first."""
    settings = setup.settings
    first = setup.fit("teacher fit", settings.teacher_model, settings.teacher, labelled=setup.labelled)
    teacher = Generation("teacher", first, [first], setup.evaluate("teacher validation", first, "validation"))
    return [teacher, *rounds(setup, teacher, setup.labelled)]


def rounds(setup: RecipeContext, teacher: Generation, labelled: Stream) -> list[Generation]:
    """The students of `teacher` and of one another on true labels `labelled` and what each teacher is sure of."""
    settings = setup.settings
    generations: list[Generation] = []
    accepted: Output | None = None
    for number in range(1, settings.generations + 1):
        name = f"round {number}"
        student_model, student_fit = settings.learner(number)
        predictions = setup.predict(f"{name} predict", teacher.model)
        keep = accepted if settings.relabel == "sticky" else None
        pseudo = setup.select(f"{name} select", predictions, settings.selection(number), keep)
        if stop_without_labels(name, teacher, pseudo):
            break
        images, _ = stream = setup.gather(f"{name} gather", pseudo)
        start = teacher.model if settings.warm_start else None
        model = setup.fit(f"{name} fit", student_model, student_fit, start, labelled=labelled, pseudo=stream)
        validation = setup.evaluate(f"{name} validation", model, "validation")
        steps = [predictions, pseudo, images, model]
        student = Generation(name, model, steps, validation, pseudo=setup.pseudo_quality(pseudo))
        generations.append(student)
        if (successor := next_teacher(setup, number, teacher, student)) is None:
            break
        accepted = pseudo if successor is student else accepted
        teacher = successor
    return generations
