"""Whether gathering rejected more than it may. Checked on found steps too: what was rejected is in the step's quarantine."""

import numpy as np
import pyarrow as pa

from engine.ground.budget import RejectLimit, count_reasons, is_excluded
from engine.ground.steps import Output, Step
from engine.images.lost_classes import check_no_class_lost, labels_of
from engine.images.scope import Scope
from engine.labels.classes import ClassList
from engine.tables import schema


def check_rejected(title: str, step: Step, gathered: Output, percent: float) -> pa.Table:
    """The quarantine (schema.QUARANTINE) of a finished gather step. Raises TooManyRejectsError when more than `percent` of the images that it read,
    without those excluded, were rejected.
    """
    if not gathered.summary["left_out"]:
        return schema.QUARANTINE.empty_table()
    quarantine = pa.concat_tables(
        step.read_sidecar("quarantine", unit) for unit in sorted(step.sidecar_units("quarantine"))
    )
    reasons = count_reasons(quarantine["reason"].to_pylist())
    rejected = sum(count for reason, count in reasons.items() if not is_excluded(reason))
    RejectLimit.of_step(percent, title, step.name).check(gathered.summary["rows"] + rejected, reasons)
    return quarantine


def check_labelled(title: str, step: Step, gathered: Output, scope: Scope, classes: ClassList) -> None:
    """Raise TooManyRejectsError when more images of a labelled scope were rejected than its limit, ValueError when a class lost all its images."""
    quarantine = check_rejected(title, step, gathered, scope.max_rejected_percent)
    if quarantine.num_rows:
        usable = labels_of(scope, classes)[~np.isin(scope.positions, scope.collection.at(quarantine))]
        check_no_class_lost(scope, classes, usable, step.name)
