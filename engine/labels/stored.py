"""Whether a stored table is of a run's classes: its class indices mean nothing with another list."""

from engine.ground.steps import Output, Store, read_schema
from engine.labels.classes import ClassList
from engine.tables import schema


def check_classes(output: Output, store: Store, classes: ClassList) -> None:
    """Raise ValueError unless the tables of a finished step were written for `classes`; a step without parts was."""
    form = read_schema(output, store.fs)
    if form is None:
        return
    found = {
        name: (form.metadata or {}).get(name, b"nothing").decode() for name in (schema.NUM_CLASSES, schema.CLASSES_HASH)
    }
    number, digest = found[schema.NUM_CLASSES], found[schema.CLASSES_HASH]
    if digest != classes.hash:
        raise ValueError(
            f"{output.step}: its table is of {number} classes (hash {digest}), this run has {len(classes)} (hash {classes.hash})."
            " Use the classes that it was made with (data.classes), or make it again."
        )
