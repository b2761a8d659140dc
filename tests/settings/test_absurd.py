"""Every field of every settings tree, with values that nobody can mean: each is refused while settings are read, or listed here as meaningful."""

import math
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from engine.fit.meta_pseudo_labels import MetaArguments
from engine.fit.patches import PatchesArguments
from engine.fit.restoration import ColourisationArguments, InpaintingArguments
from engine.fit.rotation import RotationArguments
from engine.fit.supervised import SupervisedArguments
from engine.fit.two_views import TwoViewsArguments
from engine.fit.weak_strong import UDAArguments
from engine.settings.block import Block, blocks_of, tag_of
from jobs.submit import CONFIGURED

ARGUMENTS: list[type[BaseModel]] = [
    MetaArguments,
    PatchesArguments,
    InpaintingArguments,
    ColourisationArguments,
    RotationArguments,
    SupervisedArguments,
    TwoViewsArguments,
    UDAArguments,
]
ABSURD: list[Any] = [
    math.nan,
    math.inf,
    -math.inf,
    -1,
    0,
    10**12,
    1e12,
    True,
    "",
    " ",
    "a\nb",
    "\x1b[31m",
    [],
    {},
    object(),
]

ZERO = [
    "NoiseSettings.hflip",
    "NoiseSettings.pad",
    "NoiseSettings.aa_num_ops",
    "NoiseSettings.aa_magnitude",
    "NoiseSettings.cutout",
    "FitSettings.stream_weight",
    "FitSettings.smoothing",
    "FitSettings.momentum",
    "FitSettings.weight_decay",
    "FitSettings.warmup_steps",
    "FitSettings.model_ema_decay",
    "FitSettings.seed",
    "FitSettings.cache_bytes",
    "FitSettings.freeze_steps",
    "FitSettings.flat_share",
    "ModelSettings.drop",
    "ModelSettings.drop_path",
    "ModelSettings.mean",
    "LabelClusterSettings.gpus_per_worker",
    "LabelClusterSettings.decode_threads",
    "RetrySettings.max_failures",
    "RetrySettings.max_preemptions",
    "ClusterSettings.select_state_bytes",
    "SourceSettings.max_rejected_percent",
    "PredictSettings.pixel_confidence",
    "SelectSettings.threshold",
    "SelectSettings.pixel_threshold",
    "SelectSettings.thresholds",
    "SelectSettings.at_least",
    "SelectSettings.at_most",
    "SelectSettings.prior",
    "SelectSettings.near_duplicates",
    "GuardSettings.settled",
    "ReportSettings.picture_seconds",
    "RunSettings.seed",
    "ClusterShape.gpus_per_node",
    "ClusterShape.price_node_hour",
    "PlanSettings.price_node_hour",
    "PlanSettings.selected_share",
    "PopulationSettings.resample",
    "SearchSettings.seed",
    "CleanOptions.fold_seed",
    "CleanOptions.list_above",
    "CleanOptions.relabel_above",
    "SelfDistillation.truth_share",
    "GenerationalSettings.generations",
    "MetaArguments.feedback_weight",
    "MetaArguments.baseline",
    "MetaArguments.student_wait",
    "MetaArguments.student_warmup_steps",
    "MetaArguments.student_smoothing",
    "MetaArguments.uda_weight",
    "MetaArguments.uda_steps",
    "MetaArguments.threshold",
    "PatchesArguments.gap",
    "InpaintingArguments.holes",
    "TwoViewsArguments.agree",
    "TwoViewsArguments.vary",
    "TwoViewsArguments.differ",
    "UDAArguments.weight",
    "UDAArguments.threshold",
    "UDAArguments.momentum",
    "TilesSettings.min_valid",
    "SplitSettings.margin",
    "SplitSettings.seed",
    "FeatureSettings.width",
    "FeatureSettings.ignore",
    "RasteriseJobSettings.min_features",
    "PolygonSettings.min_area",
    "PolygonSettings.simplify",
    "MapJobSettings.overlap",
    "MapJobSettings.trim",
]
"""Fields of which 0 means something."""
HUGE = ["FitSettings.cache_bytes", "ClusterSettings.select_state_bytes"]
"""Fields of which 10^12 means something: bytes."""
ANY_NUMBER = ["Dimension.uniform", "Dimension.loguniform", "Dimension.integer"]
"""Ends of ranges: which are possible is a question of both, and of the setting that is searched."""


def every_block() -> list[type[BaseModel]]:
    found: dict[str, type[BaseModel]] = {}
    waiting = [*CONFIGURED.values(), *ARGUMENTS]
    while waiting:
        block = waiting.pop()
        if block.__name__ not in found:
            found[block.__name__] = block
            waiting += [inner for field in block.model_fields.values() for inner in blocks_of(field.annotation)]
    return list(found.values())


def fields() -> Iterator[tuple[type[BaseModel], str]]:
    for block in every_block():
        for name in block.model_fields:
            if name != "name" or tag_of(block) is None:
                yield block, name


FIELDS = list(fields())


def atoms(annotation: Any) -> list[Any]:
    inner = get_args(annotation)
    if not inner or get_origin(annotation) is Literal:
        return [annotation]
    return [one for part in inner for one in atoms(part)]


def forms(annotation: Any, absurd: Any) -> list[Any]:
    """The absurd value where a value of the annotation stands: itself, or inside a list or mapping of the right shape."""
    shapes = [annotation, *get_args(annotation)]
    found = [absurd]
    for shape in shapes:
        if get_origin(shape) is tuple:
            found = [[absurd] * len(get_args(shape))]
        elif get_origin(shape) is list:
            found = [[absurd]]
        elif get_origin(shape) is dict:
            found = [{"labelled": absurd}]
    return found


def is_refused(block: type[BaseModel], name: str, value: Any, places: tuple[Any, ...] = ((), None)) -> bool:
    try:
        block.model_validate({name: value})
    except ValidationError as error:
        return any(problem["loc"][:1] == (name,) or problem["loc"] in places for problem in error.errors())
    return False


def keys_of(block: type[BaseModel], name: str) -> set[str]:
    """The names under which a field may be listed: those of its block and of the blocks it inherits from."""
    return {f"{one.__name__}.{name}" for one in block.__mro__}


def meaningful(block: type[BaseModel], name: str, value: Any) -> bool:
    keys, kinds = keys_of(block, name), atoms(block.model_fields[name].annotation)
    if blocks_of(block.model_fields[name].annotation):
        return value in ({}, [])  # a group with its defaults, a mapping without members
    if isinstance(value, bool):
        return bool in kinds or Any in kinds
    if isinstance(value, int | float) and not math.isnan(value):
        if Any in kinds or (keys & set(ANY_NUMBER) and math.isfinite(value)):
            return math.isfinite(value)
        if bool in kinds and value == 0:
            return True  # pydantic reads 0 and 1 as false and true
        return bool((value == 0 and keys & set(ZERO)) or (value == 10**12 and keys & set(HUGE)))
    if isinstance(value, list | dict) and not value:
        return Any in kinds or get_origin(block.model_fields[name].annotation) in (list, dict)
    return type(value) is object and Any in kinds


@pytest.mark.parametrize(("block", "name"), FIELDS, ids=[f"{block.__name__}.{name}" for block, name in FIELDS])
def test_what_cannot_be_meant_is_refused(block: type[BaseModel], name: str) -> None:
    accepted = [
        form
        for absurd in ABSURD
        if not meaningful(block, name, absurd)
        for form in forms(block.model_fields[name].annotation, absurd)
        if not is_refused(block, name, form)
    ]
    assert not accepted


def test_the_walk_sees_all_settings() -> None:
    assert len(FIELDS) > 180
    assert all(issubclass(block, Block) for block, _ in FIELDS)
    assert not {*ZERO, *HUGE, *ANY_NUMBER} - {key for block, name in FIELDS for key in keys_of(block, name)}


@pytest.mark.parametrize("key", ZERO)
def test_what_is_listed_as_meaningful_is(key: str) -> None:
    for block, name in FIELDS:
        if key in keys_of(block, name):
            zero = forms(block.model_fields[name].annotation, 0)[0]
            assert not is_refused(block, name, [0, 1] if key == "InpaintingArguments.holes" else zero, ())


@pytest.mark.parametrize(
    ("block", "tree", "message"),
    [
        ("FitSettings", {"steps": True}, "true and false are no number"),
        ("FitSettings", {"loss": "soft_cee"}, "did you mean 'soft_ce'"),
        ("FitSettings", {"objective": "superwised"}, "did you mean 'supervised'"),
        ("FitSettings", {"batch": {"labeled": 4}}, "did you mean 'labelled'"),
        ("FitSettings", {"noise": {"psuedo": {}}}, "did you mean 'pseudo'"),
        ("FitSettings", {"stream_weight": {"labelled": math.nan}}, "finite"),
        ("FitSettings", {"decay_steps": [20, 10]}, "rise"),
        ("FitSettings", {"steps": 1, "batch": {"pool": 1}, "stream_weight": {"pool": 0}}, "nothing would be learned"),
        ("NoiseSettings", {"scale": [1, 0.35]}, r"write \[0.35, 1\]"),
        ("ModelSettings", {"model": "resnet10tt"}, "did you mean resnet10t"),
        ("ModelSettings", {"model_args": {"x": math.nan}}, "finite"),
        ("DataSettings", {"classes": ["cat", "dog", "cat"]}, "'cat' more than once"),
        ("EvaluateJobSettings", {"corruptions": ["fogg"]}, "did you mean 'fog'"),
        ("EvaluateJobSettings", {"severities": [0]}, "greater than or equal to 1"),
        ("EvaluateJobSettings", {"task": "classfy"}, "did you mean 'classify'"),
    ],
)
def test_names_and_combinations_are_looked_up(block: str, tree: dict[str, Any], message: str) -> None:
    kind = {one.__name__: one for one in every_block()}[block]
    with pytest.raises(ValidationError, match=message):
        kind.model_validate(tree)
