"""fastai-style pseudo-labelling (Flath: Pseudo labelling for data cleaning; fast.ai): find and mend wrong labels, then grow the set.

1  Split the labelled images into folds; for each fold learn a model on the others and let it label the fold. So every image is judged by a model
   that never saw it: one that did has memorised its wrong label.
2  List the images whose label is denied, the most confident first: for review, or relabelled above a threshold.
3  Learn from the cleaned set.
4  With a pool: label it, add what is above a threshold, learn again.
"""

from engine.recipes.cleaning import audit_labels, fold_of, gather_cleaned, publish, subset
from engine.recipes.context import Generation, RecipeContext
from engine.recipes.threshold import rounds


def clean_labels(setup: RecipeContext) -> list[Generation]:
    """The model of the labels as given, that of the cleaned ones, and those that learned from the pool, too."""
    settings = setup.settings
    fold = fold_of(setup)

    answers = []
    for number in range(settings.clean.folds):
        name = f"fold {number}"
        seen, unseen = subset(setup, fold != number), subset(setup, fold == number)
        others = setup.labelled_of(f"{name} gather", seen)
        judge = setup.fit(f"{name} fit", settings.teacher_model, settings.teacher, labelled=others)
        answers.append(setup.predict(f"{name} predict", judge, on="labelled", only=unseen))
    audited = audit_labels(setup, answers, fold)
    publish(setup, audited)

    given = setup.fit("as given fit", settings.teacher_model, settings.teacher, labelled=setup.labelled)
    as_given = Generation("as given", given, [given], setup.evaluate("as given validation", given, "validation"))
    mended, _ = stream = gather_cleaned(setup, audited)
    model = setup.fit("clean fit", settings.teacher_model, settings.teacher, labelled=stream)
    validation = setup.evaluate("clean validation", model, "validation")
    clean = Generation("clean", model, [*answers, audited, mended, model], validation)
    grown = rounds(setup, clean, stream) if settings.data.pool is not None else []
    return [as_given, clean, *grown]
