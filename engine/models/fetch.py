"""From a fitted step to a model folder on this machine's disk."""

import tempfile
from pathlib import Path

import pyarrow.fs as pafs

from engine import storage
from engine.steps import Output

FILES = ("config.json", "model.safetensors")


def model_path(model: Output) -> str:
    """The model folder of a fitted step, inside the store's filesystem."""
    return f"{model.folder}/{model.summary['model']}"


def fetch_model(model: Output, fs: storage.FileSystem) -> Path:
    """A local folder with the step's model: the store's own when the store is a local disk, else a temporary copy."""
    if isinstance(fs, pafs.LocalFileSystem):
        return Path(model_path(model))
    local = Path(tempfile.mkdtemp(prefix="model-"))
    for name in FILES:
        (local / name).write_bytes(storage.get(fs, f"{model_path(model)}/{name}"))
    return local
