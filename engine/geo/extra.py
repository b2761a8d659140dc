"""The packages of the extra `geo`, imported where they are used."""

import importlib
from types import ModuleType
from typing import Any

INSTALL = "pip install '.[geo]'"


def geo_module(name: str) -> Any:
    """A module of rasterio, shapely or pyogrio. Raises ValueError with the command that installs them."""
    try:
        module: ModuleType = importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ValueError(f"{package} cannot be imported ({error}), and scenes and vectors need it: {INSTALL}") from None
    return module
