"""A labelled set that lost too many images, or a whole class, is refused with their number, reasons and place."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from engine.gather.pipeline import gather, gather_labelled
from engine.ground.budget import TooManyRejectsError
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Step, Store
from engine.images.collection import open_collection
from engine.images.scope import Scope
from engine.images.subset import Subset
from engine.labels.classes import ClassList
from engine.labels.targets import hard
from engine.settings.cluster import ClusterSettings
from engine.settings.data import SourceSettings
from engine.tables.schema import targets
from tests.images import making

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

CLASSES = ClassList(("cat", "dog"))


class Labelled:
    """Ten cats and ten dogs in shards of five, some of them broken."""

    def __init__(self, folder: Path, broken: range) -> None:
        making.folder(folder / "set", [f"{name}/{n}.jpg" for name in CLASSES.names for n in range(10)])
        for number in broken:
            name = CLASSES.names[number // 10]
            (folder / "set" / name / f"{number % 10}.jpg").write_bytes(b"" if number % 2 else making.jpeg(1)[:60])
        self.run = Run(Store(str(folder / "store")), "run", ClusterSettings())
        source = SourceSettings(rows_per_shard=5)
        self.scope = Scope(open_collection(self.run, "labelled", str(folder / "set"), source, labelled=True))

    def gather(self, percent: float, chosen: Subset | None = None) -> Output:
        scope = replace(self.scope, max_rejected_percent=percent, chosen=chosen)
        return gather_labelled(self.run, "gather labelled", scope, CLASSES)


def test_rejected_images_are_left_out_up_to_the_limit_and_no_further(tmp_path: Path) -> None:
    labelled = Labelled(tmp_path, range(2, 4))
    output = labelled.gather(percent=10)
    assert (output.summary["rows"], output.summary["left_out"]) == (18, 2)
    message = (
        r"gather labelled: 2 of 20 images rejected \(10\.0 %, limit data\.max_rejected_percent=9\.5\): 1 \w+, 1 \w+\. "
        r"`python -m jobs\.status STORE RUN --rejected` lists keys and reasons \(gather-[0-9a-f]{16}/quarantine/\)\. Fix them or raise the limit\."
    )
    for _ in range(2):  # made, then found
        with pytest.raises(TooManyRejectsError, match=message):
            labelled.gather(percent=9.5)


def test_a_set_of_which_half_is_broken_does_not_train(tmp_path: Path) -> None:
    with pytest.raises(
        TooManyRejectsError, match=r"10 of 20 images rejected \(50\.0 %, limit data\.max_rejected_percent=1\)"
    ):
        Labelled(tmp_path, range(5, 15)).gather(percent=1)


def test_a_class_without_an_image_does_not_train_whatever_the_limit(tmp_path: Path) -> None:
    labelled = Labelled(tmp_path, range(10, 20))
    message = r"labelled: 1 of 2 classes lost all their images: dog \(10 images\)\. Keys and reasons: .*gather-\w+/quarantine/"
    with pytest.raises(ValueError, match=message):
        labelled.gather(percent=100)
    numbers = np.arange(10)
    cats = Subset.of(numbers // 5, numbers % 5)
    assert labelled.gather(percent=100, chosen=cats).summary["rows"] == 10
    some_of_both = Subset.of(np.array([0, 3]), np.array([0, 0]))
    with pytest.raises(ValueError, match=r"dog \(1 images\)"):
        labelled.gather(percent=100, chosen=some_of_both)


def test_images_with_targets_from_elsewhere_have_the_same_limit(tmp_path: Path) -> None:
    labelled = Labelled(tmp_path, range(2, 4))

    def put(step: Step) -> Output:
        number = np.arange(20, dtype=np.int32)
        columns = [number // 5, number % 5, np.ones(20, np.int32), *hard(number // 10, 2)]
        return step.commit([step.put_part(0, pa.table(columns, schema=targets(2, CLASSES.hash)))], {}, 0)

    output = labelled.run.find_or_run_step("targets", StepRecord("targets", 1), put)
    scope = replace(labelled.scope, max_rejected_percent=10)
    assert gather(labelled.run, "gather", output, scope, CLASSES, check=True).summary["rows"] == 18
    with pytest.raises(TooManyRejectsError, match="gather: 2 of 20 images rejected"):
        gather(labelled.run, "gather", output, labelled.scope, CLASSES, check=True)
