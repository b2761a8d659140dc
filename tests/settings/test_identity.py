"""What of the settings names a step."""

from typing import Any

import pytest

from engine.ground.record import StepRecord
from engine.settings.block import RUNTIME, blocks_of, identity
from engine.settings.fit import FitSettings, NoiseSettings
from engine.settings.jobs import SoftSettings
from engine.settings.predict import PredictSettings
from engine.settings.select import SelectSettings

FIT = FitSettings(steps=10, batch={"labelled": 8})


def test_what_is_at_its_default_is_left_out() -> None:
    assert identity(FIT) == {"steps": 10, "batch": {"labelled": 8}}
    assert identity(FIT.model_copy(update={"lr": 0.1})) == identity(FIT)
    assert identity(FIT.model_copy(update={"lr": 0.2})) == identity(FIT) | {"lr": 0.2}


def test_blocks_inside_mappings_and_blocks_are_identified_the_same_way() -> None:
    noisy = FIT.model_copy(update={"noise": {"pseudo": NoiseSettings(pad=4, hflip=0.5)}})
    assert identity(noisy)["noise"] == {"pseudo": {"pad": 4}}
    assert identity({"fit": noisy, "classes": "c"}) == {"fit": identity(noisy), "classes": "c"}


@pytest.mark.parametrize(
    ("changed", "usual"),
    [
        (PredictSettings(backend="frozen", batch_size=7, calibrate=True), PredictSettings()),
        (PredictSettings(log_sum_exp=[2, 0.5, 2]), PredictSettings(log_sum_exp=[0.5, 2])),
        (FIT.model_copy(update={"cache_bytes": 1, "checkpoint_every": 2, "log_every": 3}), FIT),
        (SoftSettings(table="here.csv"), SoftSettings(table="there.csv")),
        (SelectSettings(exclude_keys="here.txt"), SelectSettings(exclude_keys="there.txt")),
    ],
)
def test_how_a_step_runs_and_where_its_files_lie_name_nothing(changed: SelectSettings, usual: SelectSettings) -> None:
    assert identity(changed) == identity(usual)


@pytest.mark.parametrize("block", [FitSettings, PredictSettings, SelectSettings, NoiseSettings, SoftSettings])
def test_every_other_setting_names_a_step(block: type[FitSettings]) -> None:
    """A setting that nobody thought of must make another step: reused outputs of other settings are silently wrong."""
    required: dict[str, Any] = {
        name: sample(field.annotation) for name, field in block.model_fields.items() if field.is_required()
    }
    usual = block.model_construct(**required)
    for name, field in block.model_fields.items():
        extra = field.json_schema_extra
        changed = usual.model_copy(update={name: "another value"})
        is_runtime = isinstance(extra, dict) and RUNTIME.items() <= extra.items()
        assert (identity(changed) == identity(usual)) == is_runtime, name


def sample(annotation: object) -> object:
    return {int: 1, str: "text"}.get(annotation, {}) if not blocks_of(annotation) else None  # type: ignore[call-overload]


def test_a_record_is_named_by_verb_revision_settings_and_inputs() -> None:
    record = StepRecord("select", 2, SelectSettings(threshold=0.5), {"predictions": "d"})
    assert record.plain == {
        "verb": "select",
        "revision": 2,
        "settings": {"threshold": 0.5},
        "inputs": {"predictions": "d"},
    }
    assert record.name == StepRecord("select", 2, {"threshold": 0.5}, {"predictions": "d"}).name
    others = [
        StepRecord("select", 3, SelectSettings(threshold=0.5), {"predictions": "d"}),
        StepRecord("select", 2, SelectSettings(threshold=0.6), {"predictions": "d"}),
        StepRecord("select", 2, SelectSettings(threshold=0.5), {"predictions": "e"}),
    ]
    assert len({record.name, *(other.name for other in others)}) == 4
