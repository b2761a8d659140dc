"""The tasks by the name that the setting `task` gives; another task is named as `module:Class`."""

import importlib

from engine.settings.block import SettingsError
from engine.settings.model import ModelSettings
from engine.tasks.answers import Answers, ClassAnswers
from engine.tasks.classify import Classify
from engine.tasks.mask_answers import MaskAnswers
from engine.tasks.multilabel import Multilabel
from engine.tasks.segment import Segment
from engine.tasks.task import Task

TASKS: dict[str, type[Task]] = {"classify": Classify, "multilabel": Multilabel, "segment": Segment}


def find_answers(model: ModelSettings) -> Answers:
    """What is kept of the outputs of a network, where no task is named."""
    return ClassAnswers() if model.decoder is None else MaskAnswers()


def find_task(name: str) -> type[Task]:
    """The task called `name`. Raises SettingsError for an unknown one."""
    if name in TASKS:
        return TASKS[name]
    module, _, attribute = name.partition(":")
    if attribute:
        try:
            task: type[Task] = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise SettingsError(f"task={name} cannot be imported: {error}") from error
        return task
    raise SettingsError(f"task={name} is unknown; known: {', '.join(TASKS)}, or module:Class for another")
