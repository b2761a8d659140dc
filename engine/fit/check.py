"""What of a fit is looked up when settings are read: its objective, loss, streams and network, before anything is computed."""

from functools import lru_cache

import torch

from engine.fit.losses import refuse_form
from engine.fit.objective import check_settings, find_objective
from engine.fit.supervised import SupervisedArguments
from engine.models.build import build_model, num_parameters
from engine.settings.block import SettingsError, parse
from engine.settings.fit import FitSettings
from engine.settings.model import ModelSettings
from engine.settings.run import RunSettings
from engine.settings.trust import untrusted


def check_fit(where: str, model: ModelSettings, settings: FitSettings, streams: set[str]) -> None:
    """Raise SettingsError, starting with `where`, for a fit that could not begin. `streams`: those that it may draw from.

    What names code or a file that is unpickled is looked up when the fit begins: whether the config is trusted is decided after it was read.
    """
    if next(untrusted({"objective": settings.objective, "model_args": model.model_args}), None) is not None:
        return
    try:
        if unknown := sorted(settings.batch.keys() - streams):
            raise SettingsError(f"batch names the stream {unknown[0]!r}, but this fit has {', '.join(sorted(streams))}")
        check_settings(settings, find_objective(settings.objective))
        if settings.objective == "supervised":
            parse(SupervisedArguments, settings.objective_args, "objective_args of supervised")
        check_buildable(model.model_dump_json())
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from None


def check_students(run: RunSettings, num_classes: int | None = None) -> None:
    """Raise SettingsError when a student's loss is not exact on the pseudo-labels of its generation. `num_classes`: None while it is unknown."""
    for number in range(1, run.recipe.num_generations + 1) if run.recipe.is_selecting(run) else ():
        _, fit = run.recipe.learner(run, number)
        if run.recipe.selection(run, number).targets == "soft" and fit.objective == "supervised":
            truncated = num_classes is not None and run.predict.top_p < num_classes
            refuse_form(fit.loss, f"the student of generation {number}", truncated)


@lru_cache(64)
def check_buildable(model: str) -> None:
    """Build the network of settings in JSON, without memory for its weights where that works.

    Raises ValueError when it cannot be built, or would ignore its regularisation.
    """
    settings = ModelSettings.model_validate_json(model)
    try:
        num_parameters(settings, 2)
    except (
        ValueError
    ):  # some networks compute with their weights while they are built, for which the meta device has no values
        with torch.random.fork_rng(devices=[]):
            build_model(settings.model_copy(update={"pretrained": False}), 2)
