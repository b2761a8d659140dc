"""What is documented of the settings: every one has a description, the reference is up to date, and no key comes or goes by accident."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine.settings.block import Block
from engine.settings.describe import keys
from jobs import settings_reference
from jobs.submit import CONFIGURED

FROZEN = Path(__file__).parent / "keys.txt"
"""All dotted keys by job. Adding one adds a line here; removing or renaming one also adds it to engine/settings/renamed.py."""


def all_keys() -> list[str]:
    return [f"{job} {key.path}" for job, kind in CONFIGURED.items() for key in keys(kind)]


def test_no_key_comes_or_goes_by_accident() -> None:
    assert list(dict.fromkeys(all_keys())) == FROZEN.read_text().splitlines()


@pytest.mark.parametrize("kind", CONFIGURED.values(), ids=list(CONFIGURED))
def test_every_setting_is_described(kind: type[Block]) -> None:
    found = list(keys(kind))
    assert not [key.path for key in found if not key.description]
    assert not [key.path for key in found if "when not given" in key.description]
    silent = [key.path for key in found if not key.default and "default: " not in key.description]
    assert not silent, "a setting without a value says what its default is"


def test_the_reference_is_up_to_date() -> None:
    assert settings_reference.PATH.read_text() == settings_reference.text(), "run python -m jobs.settings_reference"


def test_help_lists_the_settings() -> None:
    command = [sys.executable, "-m", "jobs.predict", "--help"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    assert "predict.top_p: whole number >= 1 <= 1e+06, default 8" in shown
