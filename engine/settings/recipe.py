"""Settings that belong to one recipe, and what each recipe cannot do without."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from engine.settings.block import Block


class DistilSettings(Block):
    """`self_distillation`: what a round learns from."""

    truth_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="a: targets are a · true label + (1 - a) · last round's answer; 0 is the paper, 0.35 a start for its sequel",
    )


class CleanSettings(Block):
    """`clean_labels`: how labels are judged, and what becomes of those that are denied."""

    folds: int = Field(
        5, ge=2, description="models, each judging what it was not trained on; the post used 2 and advises 5"
    )
    seed: int = Field(0, description="of the split into folds")
    top: int = Field(5000, ge=1, description="images listed for review at most, the most confident denials first")
    threshold: float = Field(0.0, ge=0, lt=1, description="list denials above this probability only")
    relabel_above: float | None = Field(
        None, ge=0, lt=1, description="denials above this probability take the model's label; none do when not given"
    )
    reviewed: str | None = Field(
        None,
        description="CSV or Parquet with key and label, such as audit.csv after a person has mended it: these labels win; empty leaves the image out",
    )
    truth: str | None = Field(
        None,
        description="CSV or Parquet with key and label of every image, where errors were planted: for the report alone",
    )


class TagSettings(Block):
    """`hashtags` and `semi_weakly_supervised`: what the pool's images were tagged with, and how often each is drawn."""

    table: str = Field(
        description="CSV or Parquet with key and tags: a list, or text with tags between spaces or commas"
    )
    synonyms: str | None = Field(
        None, description="CSV or Parquet with tag and canonical, e.g. WordNet's synsets: one label each"
    )
    vocabulary: list[str] | None = Field(
        None, description="tags to learn; those that match the target task matter more than how many there are"
    )
    min_images: int = Field(1, ge=1, description="without a vocabulary: tags of fewer images are dropped")
    max_tags: int | None = Field(None, ge=2, description="without a vocabulary: the most frequent tags")
    resample: Literal["natural", "sqrt", "uniform"] = Field(
        "sqrt", description="how far rare tags are drawn more often"
    )
    length: float = Field(
        2.0, ge=1, description="draws an epoch over tagged images, which sets how often the rarest are repeated"
    )
    transfer: Literal["full", "frozen"] = Field(
        "full", description="fine-tune the whole network, or a classifier on its frozen features"
    )


Refusal = tuple[Callable[[Any], bool], str]
"""(whether the settings of a run are refused, the remedy)."""

_POOL: Refusal = (lambda run: run.data.pool is None, "labels a pool: set data.pool")
_STUDENT: Refusal = (lambda run: run.student is None, "trains students: set student")


def _selections(run: Any) -> list[Any]:
    return run.selects if run.selects is not None else [run.select]


_BILLION: list[Refusal] = [
    _POOL,
    _STUDENT,
    (
        lambda run: run.student is not None and set(run.student.batch) != {"pseudo"},
        "trains students on pseudo-labels alone: set student.batch={pseudo: …}; true labels come in the finetune",
    ),
    (
        lambda run: run.finetune is None or set(run.finetune.batch) != {"labelled"},
        "ends with a fit on true labels alone: set finetune with batch={labelled: …}",
    ),
    (lambda run: run.warm_start, "trains students from scratch: leave out warm_start, or take recipe noisy_student"),
    (
        lambda run: any(select.per_class is None for select in _selections(run)),
        "takes the K best images of each class: set select.per_class, 16000 in the paper",
    ),
    (
        lambda run: any(select.targets != "hard" for select in _selections(run)),
        "learns (image, class) pairs: set select.targets=hard; its rank in another class is what makes a pair, not its probability",
    ),
]

_PRETEXTS = ("rotation", "patches", "inpainting", "colourisation", "two_views")


def _pretext(*objectives: str) -> list[Refusal]:
    """A recipe that begins with one of these objectives."""
    return [
        (
            lambda run: run.pretext is None or run.pretext.objective not in objectives,
            f"learns from raw images first: set pretext, with pretext.objective={' or '.join(objectives)}",
        ),
        (
            lambda run: "pool" in run.pretext.batch and run.data.pool is None,
            "has the pool in pretext.batch: set data.pool",
        ),
    ]


def _together(objective: str) -> list[Refusal]:
    """A recipe that learns from labelled images and the pool in one fit."""
    return [
        (lambda run: run.data.pool is None, "learns from a pool: set data.pool"),
        (lambda run: run.teacher.objective != objective, f"is one fit, `teacher`: set teacher.objective={objective}"),
    ]


_TAGS: list[Refusal] = [
    _POOL,
    (lambda run: run.tags is None, "learns the pool's tags: set tags.table"),
    (
        lambda run: run.tagging is None or set(run.tagging.batch) != {"tags"},
        "learns the tags before the labels: set tagging, with batch={tags: …}",
    ),
]

REFUSED: dict[str, list[Refusal]] = {
    "noisy_student": [
        _POOL,
        _STUDENT,
        (lambda run: run.relabel == "sticky", "labels anew in every generation: set relabel=everything or filtered"),
        (
            lambda run: run.relabel == "filtered" and any(select.classes_per_image > 1 for select in _selections(run)),
            "gives an image one label when relabel=filtered: set select.classes_per_image=1",
        ),
        (
            lambda run: run.finetune_img_size is not None and run.finetune is None,
            "changes the image size in its finetune: set finetune, e.g. a hundredth of the student's steps with noise: {labelled: {hflip: 0}}",
        ),
    ],
    "threshold": [
        _POOL,
        _STUDENT,
        (
            lambda run: run.relabel == "filtered",
            "knows relabel=everything and sticky; filtered belongs to noisy_student",
        ),
    ],
    "supervised": [],
    "billion_scale": _BILLION,
    "hashtags": _TAGS,
    "semi_weakly_supervised": [*_TAGS, *_BILLION],
    "clean_labels": [
        (lambda run: run.data.pool is not None and run.student is None, "trains students on the pool: set student")
    ],
    "self_distillation": [
        (lambda run: run.student_model is not None, "trains one architecture again and again: leave out student_model"),
        (
            lambda run: set((run.student or run.teacher).batch) != {"labelled"},
            "learns from the labelled images alone: set student.batch={labelled: …}, or leave out student",
        ),
    ],
    "rotation": _pretext("rotation"),
    "inpainting": _pretext("inpainting"),
    "self_supervised": _pretext(*_PRETEXTS),
    "fixmatch": _together("fixmatch"),
    "uda": _together("uda"),
    "meta_pseudo_labels": [
        *_together("meta_pseudo_labels"),
        (lambda run: run.finetune is None, "ends with the student fine-tuned on true labels: set finetune"),
    ],
}
"""What a recipe cannot work without, by name."""
TEACHER_ALONE = ("noisy_student", "threshold", "billion_scale", "self_distillation", "clean_labels")
"""Recipes that need nothing more when there is no generation to make: what is left of them is a teacher on the labels."""


def refuse(run: Any) -> None:
    """Raise ValueError with the remedy when the settings of a run (`SelfTrainSettings`) cannot be those of its recipe."""
    for refused, remedy in REFUSED[run.recipe] if run.generations > 0 or run.recipe not in TEACHER_ALONE else []:
        if refused(run):
            raise ValueError(f"recipe {run.recipe} {remedy}")
