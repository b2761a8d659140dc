"""A part of the page that may fail: its value, or in its place the sentence that says why there is none."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, ParamSpec, TypeVar

Value = TypeVar("Value")
Given = ParamSpec("Given")


@dataclass(frozen=True)
class Attempt(Generic[Value]):
    """What a function returned, or the problem that it met."""

    value: Value | None
    problem: str | None = None


def attempt(function: Callable[Given, Value], *args: Given.args, **kwargs: Given.kwargs) -> Attempt[Value]:
    """Call `function`; whatever it raises becomes the problem: a page with one part missing is better than none."""
    try:
        return Attempt(function(*args, **kwargs))
    except Exception as error:
        return Attempt(None, f"could not be made: {type(error).__name__}: {error}")
