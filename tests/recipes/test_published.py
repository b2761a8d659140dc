"""What the shipped configs claim to be published is what they say: the table of engine/recipes/README.md against the configs."""

import re
from pathlib import Path

import pytest
import yaml

from engine.recipes.registry import SelfTrainSettings
from engine.settings.block import get_value, load

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `(\w+)` \| (.*?) \| `([\w.]+)` \| `(.+?)` \|$", re.MULTILINE)
ROWS = ROW.findall((ROOT / "engine/recipes/README.md").read_text())


def test_every_system_with_published_settings_has_rows() -> None:
    systems = {config for config, *_ in ROWS}
    assert systems >= {"noisy_student", "billion_scale", "semi_weakly_supervised", "hashtags", "meta_pseudo_labels"}
    assert systems >= {"fixmatch", "uda", "rotation", "imagewang"}


@pytest.mark.parametrize(("config", "key", "value"), [(config, key, value) for config, _, key, value in ROWS])
def test_a_published_setting_is_that_of_the_shipped_config(config: str, key: str, value: str) -> None:
    """In the settings as they are read, defaults filled in."""
    settings = load(SelfTrainSettings, str(ROOT / f"jobs/configs/{config}.yaml"), [])
    expected = yaml.safe_load(value)
    expected = float(value) if isinstance(expected, str) and re.fullmatch(r"[\d.e-]+", value) else expected
    assert get_value(settings.model_dump(mode="json"), key) == expected


def test_the_sizes_of_noisy_student_are_those_of_its_scripts() -> None:
    """28:1 and B7's magnitude 27 for L2: a dry run of the last iteration at full scale."""
    overrides = ["models.student.model=tf_efficientnet_l2", "fits.student.batch={labelled: 2048, pseudo: 57344}"]
    settings = load(SelfTrainSettings, str(ROOT / "jobs/configs/noisy_student.yaml"), overrides)
    model, fit = settings.recipe.learner(settings, 1)
    assert (model.img_size, model.drop, fit.batch["pseudo"] // fit.batch["labelled"]) == (475, 0.5, 28)
    assert (fit.noise["pseudo"].aa_magnitude, fit.noise["pseudo"].aa_scale) == (27, "tf")
