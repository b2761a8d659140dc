"""Equality of values that hold arrays: dataclasses compare fields with `==`, which on arrays is an array and no answer."""

from typing import Any

import numpy as np


def fields_equal(one: object, other: object) -> bool:
    """Whether two dataclass instances are of one class and agree in every field, arrays element by element.

    It compares the fields that are there, so that a field added later is compared, too.
    """
    if type(one) is not type(other):
        return False
    mine, theirs = vars(one), vars(other)
    return mine.keys() == theirs.keys() and all(_equal(value, theirs[name]) for name, value in mine.items())


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    return bool(one == other)
