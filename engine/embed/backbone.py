"""The frozen network of features: a model folder without a classifier, whose outputs are what the classifier would see."""

import tempfile
import time
from pathlib import Path

import torch

from engine.ground.progress import log_event
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Step
from engine.models.build import build_model, with_statistics
from engine.models.checkpoint import initialise, read_config, save
from engine.models.fetch import FILES, fetch_model
from engine.settings.model import ModelSettings

VERB, REVISION = "backbone", 1


def make_backbone(run: Run, settings: ModelSettings, init: Output | None) -> Output:
    """The network of `settings` without its classifier, with the weights of the model `init`, or with timm's where `settings.pretrained`.

    Summary: {model, dim, architecture, from}. Equal weights have equal digests. Raises ValueError without weights, for weights of another
    architecture, and for a network of pixels.
    """
    check_frozen(settings, init is not None)
    if init is not None:
        settings = with_statistics(settings, read_config(fetch_model(init, run.store.fs)).settings)
        settings = settings.model_copy(update={"pretrained": False})
    inputs = {} if init is None else {"init": init.digest}

    def work(step: Step) -> Output:
        started = time.time()
        network = bare_network(settings)
        if init is not None:
            log_event("backbone", str(initialise(network, fetch_model(init, run.store.fs))))
        dim = feature_dim(network, settings)
        with tempfile.TemporaryDirectory() as folder:
            save(Path(folder), network, settings, [])
            parts = [
                step.put_file(unit, f"model/{name}", Path(folder, name).read_bytes()) for unit, name in enumerate(FILES)
            ]
        summary = {"model": "model", "dim": dim, "architecture": settings.model}
        return step.commit(parts, summary, started)

    return run.find_or_run_step("backbone", StepRecord(VERB, REVISION, {"model": settings}, inputs), work)


def bare_network(settings: ModelSettings) -> torch.nn.Module:
    """The network of `settings` without its classifier. Raises ValueError where timm's weights cannot be had."""
    try:
        with torch.random.fork_rng(devices=[]):
            return build_model(settings, 0)
    except ValueError:
        raise
    except Exception as error:  # what a download raises has no common class
        raise ValueError(
            f"timm's weights of {settings.model} cannot be fetched ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})."
            " Without a network, put its config.json and model.safetensors into a folder, and set recipe.backbone to that folder."
        ) from error


def check_frozen(settings: ModelSettings, is_initialised: bool) -> None:
    """Raise ValueError for a network whose features would mean nothing, or that has none."""
    if settings.decoder is not None:
        raise ValueError(f"model {settings.model} with decoder={settings.decoder} has no features of a whole image")
    if not is_initialised and not settings.pretrained:
        raise ValueError(
            f"features of {settings.model} with random weights mean nothing: give a model folder or a fitted step, or set models.teacher.pretrained"
        )


def feature_dim(network: torch.nn.Module, settings: ModelSettings) -> int:
    """Values per image. Raises ValueError when the outputs are not one vector per image, or the image size cannot be run."""
    try:
        with torch.inference_mode():
            outputs = network.eval()(torch.zeros(1, 3, settings.img_size, settings.img_size))
    except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
        raise ValueError(
            f"model {settings.model} cannot be run on images of img_size={settings.img_size}: {error}. Choose another img_size."
        ) from error
    if outputs.ndim != 2:
        raise ValueError(
            f"model {settings.model} without its classifier gives {tuple(outputs.shape)}, not one vector per image. Choose another model."
        )
    return int(outputs.shape[1])
