"""The packages of the extra `geo`: imported where they are used, and named with their command where they are missing."""

import sys

import pytest

from engine.geo.extra import geo_module


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(ValueError, match=r"rasterio cannot be imported .*: pip install '\.\[geo\]'"):
        geo_module("rasterio")


def test_a_module_of_a_package_is_found() -> None:
    assert geo_module("rasterio.features").rasterize
