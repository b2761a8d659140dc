"""Fetch the model of a fitted step into a local folder."""

import tempfile
from pathlib import Path

import pyarrow.fs as pafs

from engine.ground import storage
from engine.ground.steps import Output, Store, read_output
from engine.labels.classes import ClassList
from engine.labels.stored import check_classes
from engine.models.checkpoint import class_names

FILES = ("config.json", "model.safetensors")


def model_path(model: Output) -> str:
    """Path of the model folder of a fitted step in the filesystem of the store."""
    return f"{model.folder}/{model.summary['model']}"


def fetch_model(model: Output, fs: storage.FileSystem) -> Path:
    """A local folder with the model of a step: the folder in the store if the store is on a local disk, else a temporary copy."""
    if isinstance(fs, pafs.LocalFileSystem):
        return Path(model_path(model))
    local = Path(tempfile.mkdtemp(prefix="model-"))
    for name in FILES:
        (local / name).write_bytes(storage.get(fs, f"{model_path(model)}/{name}"))
    return local


def teacher_classes(store: Store, predictions: Output) -> ClassList:
    """The classes of predictions: those of the model that predicted. Raises ValueError when that model is no longer in the store, or is of other
    classes than the table."""
    model = read_output(store, predictions.summary["model"])
    if model is None:
        raise ValueError(
            f"{predictions.step}: its model {predictions.summary['model']} is no longer in the store. Predict again."
        )
    classes = ClassList(tuple(class_names(fetch_model(model, store.fs))))
    check_classes(predictions, store, classes)
    return classes
