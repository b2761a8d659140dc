"""Check that no class lost all its images: a model or score without that class would not be comparable."""

import numpy as np
import numpy.typing as npt

from engine.images.scope import Scope
from engine.labels.classes import ClassList

SHOWN = 10
"""Most classes listed in a message."""


def labels_of(scope: Scope, classes: ClassList) -> npt.NDArray[np.int64]:
    """Class index (n,) of every image of a labelled scope in address order. Raises ValueError for an image without a label."""
    index: npt.NDArray[np.int64] = scope.collection.class_indices(classes)
    return index[scope.positions]


def check_no_class_lost(scope: Scope, classes: ClassList, usable: npt.NDArray[np.integer], step: str) -> None:
    """Raise ValueError when a class that images of `scope` have is missing among the classes of the usable ones, (n,).

    `step`: the name of the step that holds the reasons in its quarantine.
    """
    number = len(classes)
    before, after = (np.bincount(index, minlength=number) for index in (labels_of(scope, classes), usable))
    check_counts(scope.name, classes, before, after, step)


def check_counts(
    name: str, classes: ClassList, before: npt.NDArray[np.int64], after: npt.NDArray[np.int64], step: str
) -> None:
    """`check_no_class_lost` from the numbers of images (C,) that each class has in the labelled set `name` and among the usable ones."""
    lost = np.flatnonzero((before > 0) & (after == 0))
    if len(lost):
        named = ", ".join(f"{classes.names[index]} ({before[index]:,} images)" for index in lost[:SHOWN])
        raise ValueError(
            f"{name}: {len(lost)} of {len(classes)} classes lost all their images: {named}. "
            f"Keys and reasons: `python -m jobs.status STORE RUN --rejected` ({step}/quarantine/). "
            "Fix the images, add others or remove the class."
        )
