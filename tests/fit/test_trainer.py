"""What a fit's driver makes of its workers' errors."""

import errno
from pathlib import Path

import pytest
from ray.train import WorkerGroupError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

from engine.fit.loop import DivergedError
from engine.fit.trainer import user_error_of
from engine.ground.record import StepRecord
from engine.ground.steps import Store, StoreError


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (ValueError("too many are broken"), ValueError("too many are broken")),
        (DivergedError("lower fit.lr"), ValueError("lower fit.lr")),
        (OSError(errno.ENOSPC, "full", "/disk/model"), StoreError("/disk/model: cannot be written")),
        (RuntimeError("a bug"), None),
    ],
)
def test_what_a_person_can_mend_is_found_among_the_failures(
    raised: Exception, told: Exception | None, tmp_path: Path
) -> None:
    step = Store(str(tmp_path / "store")).open().step(StepRecord("fit", 0))
    failures = {0: RuntimeError("connection closed by peer"), 1: UserExceptionWithTraceback(raised, "Traceback …")}
    found = user_error_of(WorkerGroupError("…", failures), step)
    assert type(found) is type(told)
    assert told is None or str(found).startswith(str(told))
