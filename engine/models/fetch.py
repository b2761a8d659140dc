"""From a fitted step to a model folder on this machine's disk."""

import tempfile
from pathlib import Path

import pyarrow.fs as pafs

from engine.ground import storage
from engine.ground.steps import Output, Store, read_output
from engine.labels.classes import ClassList
from engine.models.checkpoint import class_names

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


def teacher_classes(store: Store, predictions: Output) -> ClassList:
    """The classes that predictions speak of: those of the model that made them."""
    model = read_output(store, predictions.summary["model"])
    if model is None:
        raise ValueError(
            f"{predictions.step}: the model that made it, {predictions.summary['model']}, is no longer in the store"
        )
    return ClassList(tuple(class_names(fetch_model(model, store.fs))))
