"""Self-distillation (Mobahi, Farajtabar, Bartlett: Self-distillation amplifies regularization in Hilbert space, 2020; Borup, Andersen: Even your
teacher needs guidance, 2021).

0  Learn a model on the labelled images.
t  Learn the same architecture anew, on the same images, towards the answers of round t - 1; in the second paper towards a mixture of those
   answers and the true labels.

Each round regularises a little more: first less over-fit, then under-fit, and without true labels in the end nothing is left. So every round is
watched on true labels that none of them learned from, and the rounds end with the first that is significantly worse.
"""

from engine.recipes.context import Generation, RecipeContext
from engine.recipes.guard import next_teacher, stop_without_labels


def self_distillation(setup: RecipeContext) -> list[Generation]:
    """Every round's model, oldest first."""
    settings = setup.settings
    first = setup.fit("round 0 fit", settings.teacher_model, settings.teacher, labelled=setup.labelled)
    teacher = Generation("round 0", first, [first], setup.evaluate("round 0 validation", first, "validation"))
    rounds = [teacher]

    for number in range(1, settings.generations + 1):
        name = f"round {number}"
        _, learner = settings.learner(number)
        predictions = setup.predict(f"{name} predict", teacher.model, on="labelled")
        answers = setup.select(f"{name} select", predictions, settings.selection(number), on="labelled")
        if stop_without_labels(name, teacher, answers):
            break
        targets = setup.mix(f"{name} mix", answers, settings.distil.truth_share)
        images, _ = stream = setup.gather(f"{name} gather", targets, on="labelled")
        # another seed: from the same start the round would only retrace the one before
        again = learner.model_copy(update={"seed": learner.seed + number})
        model = setup.fit(f"{name} fit", settings.teacher_model, again, labelled=stream)
        validation = setup.evaluate(f"{name} validation", model, "validation")
        steps = [predictions, targets, images, model]
        quality = setup.pseudo_quality(answers, on="labelled")
        student = Generation(name, model, steps, validation, pseudo=quality)
        rounds.append(student)
        if (successor := next_teacher(setup, number, teacher, student, settles=False)) is None:
            break
        teacher = successor
    return rounds
