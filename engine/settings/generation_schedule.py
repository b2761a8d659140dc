"""Settings that change from generation to generation: dotted values of one generation on top of those of the run."""

from typing import Any

from engine.settings.block import SettingsError, set_value

GROUPS = ("select", "student", "student_model")
"""What may change; the rest is one for all generations."""


def apply_schedule(tree: dict[str, Any], values: dict[str, Any], where: str) -> dict[str, Any]:
    """The run's settings as a plain tree with a generation's `values` put in. Raises SettingsError for a value that is not a generation's own."""
    if any(path.partition(".")[0] == "student_model" for path in values):
        tree["student_model"] = tree["student_model"] or tree["teacher_model"]
    for path, value in values.items():
        if path.partition(".")[0] not in GROUPS:
            raise SettingsError(f"{where}: {path} is one for all generations; {', '.join(GROUPS)} may change")
        set_value(tree, path, value, where)
    return tree
