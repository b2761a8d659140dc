"""Labelling into stores that misbehave, really: a disk that is full, one that may only be read, and an S3 server that fails every third request."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.ground import storage
from engine.ground.steps import StoreError
from tests.flaky_s3 import Moods, flaky
from tests.predict.test_faults import Pool
from tests.predict.test_faults import a_pool_of_actors as a_pool_of_actors  # the fixture
from tests.predict.test_shard_predictor import teacher as teacher  # the fixture

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("local_ray")]


@contextmanager
def disk(folder: Path) -> Iterator[Path]:
    """A file system of its own of 64 MiB, in memory."""
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"mounting needs root: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def used(folder: Path) -> int:
    """Bytes, as the file system counts them."""
    told = subprocess.run(["df", "--output=used", "-B1", folder], check=True, capture_output=True, text=True)
    return int(told.stdout.split()[1])


def test_a_full_disk_and_one_that_may_only_be_read_are_told_and_the_work_goes_on(
    digits: Path, teacher: Path, tmp_path: Path
) -> None:
    whole = Pool(tmp_path / "whole", teacher, digits)
    undisturbed = whole.rows(whole.label())
    with disk(tmp_path / "disk") as mounted:
        pool = Pool(mounted / "store", teacher, digits)
        remount(mounted, f"size={used(mounted) + 10 * 4096}")
        with pytest.raises(StoreError, match="no space is left on it"):
            pool.label()
        parts = {path.name: path.read_bytes() for path in mounted.glob("store/steps/predict-*/parts/*.parquet")}
        assert not list(mounted.glob("store/steps/predict-*/step.json"))
        remount(mounted, "ro,size=64m")
        with pytest.raises(StoreError, match="it is read-only"):
            pool.label()
        remount(mounted, "rw,size=64m")
        output = pool.label()
        assert pool.rows(output) == undisturbed
        kept = {path.name: path.read_bytes() for path in mounted.glob("store/steps/predict-*/parts/*.parquet")}
        assert parts.items() <= kept.items(), "what was labelled before the disk was full was made again"


def test_an_s3_server_that_fails_every_third_request_changes_nothing(
    digits: Path, teacher: Path, tmp_path: Path, s3: str
) -> None:
    whole = Pool(tmp_path / "whole", teacher, digits)
    undisturbed = whole.rows(whole.label())
    host, port = re.search(r"endpoint_override=(.+)%3A(\d+)", s3).groups()  # type: ignore[union-attr]
    moods = Moods()
    with flaky(host, int(port), moods) as through:
        pool = Pool(s3.format("flaky").replace(f"%3A{port}", f"%3A{through}"), teacher, digits, max_failures=0)
        output = pool.label()
        assert pool.rows(output) == undisturbed
        names = storage.names(pool.run.store.fs, f"{output.folder}/parts")
    assert len(names) == pool.images.manifest.num_shards, "a shard was labelled twice"
    assert moods.seen["refused"] > 10
    assert moods.seen["dropped"] > 5
    assert moods.seen["stalled"] >= 1
