"""Settings: a mistake is told in one paragraph with the remedy; what was resolved can be read back."""

from pathlib import Path

import pytest

from engine.recipes.registry import SelfTrainSettings
from engine.search.job import SearchJobSettings
from engine.settings import jobs as module
from engine.settings.block import Block, SettingsError, dump, load, parse
from engine.settings.embed import EmbedJobSettings
from engine.settings.fit import FitSettings
from engine.settings.geo import MapJobSettings, RasteriseJobSettings, TilesJobSettings

CONFIG = """
recipe: supervised
run: r
data: {labelled: images}
models: {teacher: {model: resnet18}}
fits: {teacher: {steps: 10, batch: {labelled: 4}}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


def test_overrides_win_and_resolved_settings_round_trip(config: Path, tmp_path: Path) -> None:
    settings = load(
        SelfTrainSettings,
        config,
        ["fits.teacher.lr=0.5", "data.pool=s3://bucket/pool", "fits.teacher.noise.labelled.pad=3"],
    )
    assert settings.fits.teacher.lr == 0.5
    assert settings.data.pool == "s3://bucket/pool"
    assert settings.fits.teacher.noise["labelled"].pad == 3
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(dump(settings))
    assert load(SelfTrainSettings, resolved) == settings


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fits.teacher.leraning_rate=1", "fits.teacher.leraning_rate: unknown setting"),
        ("fits.teacher.weight_decy=1", "did you mean 'weight_decay'?"),
        ("fits.teacher.noise.labelled.hflp=1", "did you mean 'hflip'?"),
        ("select.treshold=0.5", "did you mean 'threshold'?"),
        ("fits.teacher.lr=fast", "fits.teacher.lr: input should be a valid number"),
        ("fits.teacher.lr=-1", "got -1"),
        ("recipe=noisy_studnt", "recipe.name: 'noisy_studnt' is unknown; did you mean 'noisy_student'?"),
        ("recipe.generations=3", "recipe.generations: belongs to noisy_student, threshold"),
        ("recipe.nme=3", "recipe.nme: unknown setting; did you mean 'name'?"),
        ("fits.teacher", "write it as key=value"),
        ("run.name=1", "'run' is a value, not a group"),
    ],
)
def test_mistakes_are_told_with_the_remedy(config: Path, override: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(SelfTrainSettings, config, [override])
    assert message in str(caught.value)


def test_a_recipe_without_what_it_needs_is_refused(config: Path) -> None:
    with pytest.raises(SettingsError, match=r"labels a pool: set data\.pool"):
        load(SelfTrainSettings, config, ["recipe=noisy_student"])
    with pytest.raises(SettingsError, match=r"trains students: set fits\.student"):
        load(SelfTrainSettings, config, ["recipe=noisy_student", "data.pool=pool"])


def test_a_batch_that_the_workers_cannot_share_is_refused(config: Path) -> None:
    load(SelfTrainSettings, config, ["cluster.train.workers=2"])
    with pytest.raises(
        SettingsError, match=r"fits\.teacher: 3 workers cannot share batch\.labelled=4.*a multiple of 3"
    ):
        load(SelfTrainSettings, config, ["cluster.train.workers=4", "cluster.train.min_workers=2"])


def test_a_missing_file_and_broken_yaml_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml: no such config"):
        load(SelfTrainSettings, tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    with pytest.raises(SettingsError, match=r"broken\.yaml: not valid YAML"):
        load(SelfTrainSettings, broken)


def test_required_settings_are_listed() -> None:
    with pytest.raises(SettingsError, match=r"steps: required, but not set(.|\n)*batch: required"):
        parse(FitSettings, {}, "here")


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "jobs" / "configs").glob("*.yaml")), ids=lambda path: path.name
)
def test_every_shipped_config_loads(path: Path) -> None:
    kinds: dict[str, type[Block]] = {
        "predict": module.PredictJobSettings,
        "select": module.SelectJobSettings,
        "fit": module.FitJobSettings,
        "evaluate": module.EvaluateJobSettings,
        "plan": module.PlanJobSettings,
        "search": SearchJobSettings,
        "rasterise": RasteriseJobSettings,
        "tiles": TilesJobSettings,
        "map": MapJobSettings,
        "embed": EmbedJobSettings,
    }
    assert load(kinds.get(path.stem, SelfTrainSettings), path)


def scheduled(config: Path, schedule: list[dict[str, object]], *overrides: str) -> SelfTrainSettings:
    student = "fits.student={steps: 5, batch: {labelled: 2, pseudo: 2}, noise: {pseudo: {pad: 2}}}"
    more = [
        "recipe=noisy_student",
        f"recipe.generations={len(schedule)}",
        "data.pool=pool",
        student,
        f"schedule={schedule}",
    ]
    return load(SelfTrainSettings, config, [*more, *overrides])


def test_a_schedule_changes_single_generations(config: Path) -> None:
    settings = scheduled(
        config, [{"select.threshold": 0.9}, {"fits.student.noise.pseudo.pad": 4, "models.student.drop": 0.5}]
    )
    assert [settings.selection(g).threshold for g in (1, 2)] == [0.9, 0.0]
    assert [settings.learner(g)[1].noise["pseudo"].pad for g in (1, 2)] == [2, 4]
    assert [settings.learner(g)[0].drop for g in (1, 2)] == [0.0, 0.5]
    assert settings.learner(2)[0].model == "resnet18"


def test_a_recipe_without_student_model_can_be_scheduled(config: Path) -> None:
    alone = ["recipe.name=self_distillation", "fits.student={steps: 5, batch: {labelled: 2}}", "data.pool=null"]
    settings = scheduled(config, [{"fits.student.steps": 7}, {"fits.student.steps": 9}], *alone)
    assert [settings.learner(g)[1].steps for g in (1, 2)] == [7, 9]


@pytest.mark.parametrize(
    ("schedule", "overrides", "message"),
    [
        ([{"select.treshold": 0.9}], (), "did you mean 'threshold'?"),
        ([{"select.threshold": 1.5}], (), "schedule of generation 1"),
        (
            [{"fits.teacher.lr": 0.1}],
            (),
            "fits.teacher.lr is one for all generations; select, fits.student, models.student may change",
        ),
        ([{}, {}], ("recipe.generations=3",), "one mapping for each of the 3 generations"),
    ],
)
def test_an_impossible_schedule_is_refused(
    config: Path, schedule: list[dict[str, object]], overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        scheduled(config, schedule, *overrides)
    assert message in str(caught.value)
