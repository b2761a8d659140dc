"""Settings of a run of the main job. The union of all recipes is closed in `engine/recipes/registry.py`."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from engine.settings.block import Block, SettingsError, parse, set_value
from engine.settings.cluster import ClusterSettings
from engine.settings.data import DataSettings
from engine.settings.fit import LARGEST_SEED, FitSettings, FitsSettings
from engine.settings.model import ModelSettings, ModelsSettings
from engine.settings.names import TASKS, RunName, check_or_class
from engine.settings.predict import PredictSettings
from engine.settings.recipe import RecipeSettings
from engine.settings.renamed import RENAMED
from engine.settings.select import SelectSettings, check_stored
from engine.settings.trust import TRUST

GENERATIONAL = ("select", "fits.student", "models.student")
"""Groups that may differ from generation to generation; the rest is one for all."""
SEED_STRIDE = 1000
"""Between the random states of two seeds of a run: recipes count on from the seed of a fit."""


class GuardSettings(Block):
    """When a generation ends the self-training, or is thrown away. Decisions need validation images; without them they are only logged."""

    enabled: bool = Field(True, description="obey the decisions; otherwise they are logged and recorded, not obeyed")
    level: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="significance level of the tests of a run together; each generation has its share (Bonferroni)",
    )
    lost_class: int = Field(
        20, ge=1, le=10**9, description="fewest pseudo-labels of a class before, for the loss of all of them to count"
    )
    settled: float = Field(
        0.01, ge=0, lt=1, description="share of images with a changed pseudo-label, below which the self-training stops"
    )


class ReportSettings(Block):
    """What is written for people at the end of a run. It changes no result, and `jobs.report` makes the same page later."""

    page: bool = Field(
        True, description="write report.html into the folder of the run, and README.md into those of its models"
    )
    picture_seconds: float = Field(
        20.0,
        ge=0,
        le=86_400,
        description="longest time in seconds to read pictures for the page; 0: a page without pictures",
    )


class RunSettings(Block):
    """The main job: a recipe, its data, its networks, its fits and its selection."""

    shorthand: ClassVar[dict[str, str]] = {"recipe": "name"}

    recipe: SerializeAsAny[RecipeSettings] = Field(description="recipe and its own options")
    task: str = Field(
        "classify",
        description="classify: one class per image; multilabel: any number of them; segment: one per pixel; module:Class for another",
    )
    run: RunName = Field(description="name of the run below STORE/runs/")
    store: str = Field("store", description="folder or URI that holds steps and runs")
    seed: int = Field(
        0, ge=0, le=LARGEST_SEED, description="random state of the run, from which those of all fits follow"
    )
    data: DataSettings = Field(description="collections of the run")
    models: ModelsSettings = Field(description="networks of the run")
    fits: FitsSettings = Field(description="fits of the run")
    predict: PredictSettings = Field(PredictSettings(), description="predictions")
    select: SelectSettings = Field(SelectSettings(), description="selection of pseudo-labels")
    guard: GuardSettings = Field(GuardSettings(), description="rules after a generation")
    report: ReportSettings = Field(ReportSettings(), description="what is written for people at the end of the run")
    trust: bool = TRUST
    schedule: list[dict[str, Any]] | None = Field(
        None,
        description="settings of single generations, dotted, one mapping per generation, as a search finds them:"
        " [{select.threshold: 0.9}, {select.threshold: 0.7, fits.student.lr: 0.05}] (default: all alike)",
    )
    cluster: ClusterSettings = Field(ClusterSettings(), description="what a step may take of the cluster")

    @field_validator("task")
    @classmethod
    def _task_is_known(cls, name: str) -> str:
        return check_or_class("task", name, TASKS)

    @model_validator(mode="before")
    @classmethod
    def _write_out(cls, tree: Any) -> Any:
        """`recipe: rotation` is short for `recipe: {name: rotation}`, and the default is noisy_student."""
        if not isinstance(tree, dict) or isinstance(tree.get("recipe"), RecipeSettings):
            return tree
        recipe = {} if tree.get("recipe") is None else tree["recipe"]
        if not isinstance(recipe, str | dict):
            return tree
        return {**tree, "recipe": {"name": recipe} if isinstance(recipe, str) else {"name": "noisy_student", **recipe}}

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        self.recipe.check(self)
        self.predict.check_task(self.task)
        for name, fit in self.fits.named().items():
            self.cluster.refuse_uneven(f"fits.{name}", fit.batch)
        if self.predict.calibrate and self.data.validation is None:
            raise ValueError("predict.calibrate fits the temperature on validation images: set data.validation")
        if self.schedule is not None and len(self.schedule) != self.recipe.num_generations:
            raise ValueError(
                f"schedule has one mapping for each of the {self.recipe.num_generations} generations: found {len(self.schedule)} mappings"
            )
        self.check_selections(self.data.classes)
        return self

    def check_selections(self, classes: Sequence[str] | None) -> None:
        """Raise ValueError when a generation's selection needs what its predictions will not hold. `classes`: their names, None while unknown."""
        if self.schedule:
            for generation in range(1, len(self.schedule) + 1):
                now = self.at(generation)
                if classes is not None:
                    check_generation(f"schedule of generation {generation}", now, classes)
        elif self.recipe.is_selecting(self):
            check_stored(self.select, self.predict.top_p, self.predict.columns, classes)

    def at(self, generation: int) -> Self:
        """The settings of a generation, counted from 1: those of the run with the generation's own on top."""
        if not self.schedule:
            return self
        where = f"schedule of generation {generation}"
        tree = self.model_dump(
            mode="json", exclude={"schedule"}, exclude_unset=True
        )  # what is unset stays so: recipes fill it
        return parse(type(self), apply_schedule(tree, self.schedule[generation - 1], where), where)

    @property
    def scheduled(self) -> range:
        """Numbers of the generations that may have settings of their own: the first alone where all are alike."""
        return range(1, len(self.schedule or [{}]) + 1)

    def selection(self, generation: int) -> SelectSettings:
        """The selection of a generation, counted from 1."""
        return self.at(generation).select

    def learner(self, generation: int) -> tuple[ModelSettings, FitSettings]:
        """The student of a generation, counted from 1, and its fit."""
        now = self.at(generation)
        return now.models.student or now.models.teacher, now.fits.student or now.fits.teacher

    def seeded(self, fit: FitSettings) -> FitSettings:
        """A fit in the random state that follows from the run's seed."""
        return fit.model_copy(update={"seed": fit.seed + SEED_STRIDE * self.seed})


def check_generation(where: str, settings: RunSettings, classes: Sequence[str]) -> None:
    """Check one generation's selection, and name the generation in the error."""
    try:
        settings.check_selections(classes)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from None


def is_generational(path: str) -> bool:
    """Whether the dotted setting may differ from generation to generation."""
    return any(path == group or path.startswith(f"{group}.") for group in GENERATIONAL)


def refuse_renamed(path: str, where: str) -> None:
    """Raise SettingsError for the dotted path of an earlier version, with the one of today."""
    for old, new in RENAMED.items():
        if path == old or path.startswith(f"{old}."):
            raise SettingsError(f"{where}: {new}{path.removeprefix(old)} is what `{path}` was called")


def apply_schedule(tree: dict[str, Any], values: dict[str, Any], where: str) -> dict[str, Any]:
    """The run's settings as a plain tree with a generation's `values` put in. Raises SettingsError for a value that is one for all generations."""
    if any(path.startswith("models.student") for path in values):
        tree["models"]["student"] = tree["models"].get("student") or tree["models"]["teacher"]
    for path, value in values.items():
        if not is_generational(path):
            refuse_renamed(path, where)
            raise SettingsError(f"{where}: {path} is one for all generations; {', '.join(GENERATIONAL)} may change")
        set_value(tree, path, value, where)
    return tree
