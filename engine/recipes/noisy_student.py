"""Noisy Student (Xie, Luong, Hovy, Le: Self-training with Noisy Student improves ImageNet classification, 2020; Algorithm 1).

1  Learn a teacher on labelled images, noised.
2  Let the un-noised teacher label the unlabelled images, softly or hardly.
3  Learn an equal-or-larger student on labelled and pseudo-labelled images together, noised: augmentation, dropout, stochastic depth.
4  Fix the resolution: a last short fit on labelled images, larger and without augmentation, shallow layers frozen (`finetune`).
5  Make the student the teacher and go back to 2; later teachers may label only what the first one chose (`relabel: filtered`).

The loss is one mean over the concatenated batch, as the paper says. Its program adds r times the pseudo-labelled mean to the labelled one, (1 + r)
times as much: `stream_weight: {labelled: 1, pseudo: r}`. Under SGD that is a learning rate (1 + r) times as large.
"""

from engine.ground.steps import Output
from engine.models.build import warn_if_smaller
from engine.recipes.context import Generation, RecipeContext
from engine.recipes.efficientnet import published
from engine.recipes.guard import next_teacher, stop_without_labels


def noisy_student(setup: RecipeContext) -> list[Generation]:
    """The teacher and every student, oldest first."""
    settings = setup.settings
    first = setup.fit("teacher fit", settings.teacher_model, settings.teacher, labelled=setup.labelled)
    teacher = Generation("teacher", first, [first], setup.evaluate("teacher validation", first, "validation"))
    generations = [teacher]

    filtered: Output | None = None
    for number in range(1, settings.generations + 1):
        name = f"generation {number}"
        student_model, student_fit = settings.learner(number)
        if settings.published_noise:
            student_model, student_fit = published(student_model, student_fit)
        warn_if_smaller(settings.teacher_model, student_model, len(setup.classes))
        if settings.relabel == "filtered" and filtered is not None:
            predictions = setup.predict(f"{name} predict", teacher.model, only=setup.selected_images(filtered))
            pseudo = setup.reassign(f"{name} reassign", predictions, filtered, settings.selection(number))
        else:
            predictions = setup.predict(f"{name} predict", teacher.model)
            pseudo = filtered = setup.select(f"{name} select", predictions, settings.selection(number))
        if stop_without_labels(name, teacher, pseudo):
            break
        images, _ = stream = setup.gather(f"{name} gather", pseudo)
        start = teacher.model if settings.warm_start else None
        model = setup.fit(f"{name} fit", student_model, student_fit, start, labelled=setup.labelled, pseudo=stream)
        steps = [predictions, pseudo, images, model]
        if settings.finetune is not None:
            final_size = settings.finetune_img_size or student_model.img_size
            final_model = student_model.model_copy(update={"img_size": final_size})
            model = setup.fit(f"{name} finetune", final_model, settings.finetune, model, labelled=setup.labelled)
            steps.append(model)
        validation = setup.evaluate(f"{name} validation", model, "validation")
        student = Generation(name, model, steps, validation, pseudo=setup.pseudo_quality(pseudo))
        generations.append(student)
        if (successor := next_teacher(setup, number, teacher, student)) is None:
            break
        teacher = successor
    return generations
