"""Images in two sets are found, listed, and excluded from the pool."""

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.images.decode import content_hash
from engine.images.overlap import ContentHashes, build_exclusion_set, check_overlaps, read_content_hashes

from .making import folder, jpeg, manifest


def keyed(root: Path, store: Path, keys: list[str], first: int) -> ContentHashes:
    root.mkdir()
    images = [jpeg(n) for n in range(first, first + len(keys))]
    pq.write_table(pa.table({"key": keys, "image": images}), root / "t.parquet")
    return read_content_hashes(manifest(root, store))


def test_sets_that_share_no_image_pass(tmp_path: Path) -> None:
    names = ["a/1.jpg", "a/2.jpg"]  # the same paths in both: they name places, not images
    sets = {
        name: read_content_hashes(manifest(folder(tmp_path / name, names, first), tmp_path / f"store {name}"))
        for name, first in (("labelled", 0), ("test", 2))
    }
    check_overlaps(sets)
    assert len(sets["test"].hashes) == 2


def test_shared_content_raises_with_keys(tmp_path: Path) -> None:
    one = manifest(folder(tmp_path / "one", [f"a/{n:02d}.jpg" for n in range(15)]), tmp_path / "store1")
    two = manifest(folder(tmp_path / "two", [f"{n:02d}.jpg" for n in range(12)], 1), tmp_path / "store2")
    with pytest.raises(ValueError, match="labelled and test share 12 images") as caught:
        check_overlaps({"labelled": read_content_hashes(one), "test": read_content_hashes(two)})
    message = str(caught.value)
    assert "a/01.jpg = 00.jpg" in message
    assert message.count(" = ") == 10
    assert "and 2 more" in message
    assert "Remove them" in message


def test_keys_of_a_key_column_identify_an_image_of_any_bytes(tmp_path: Path) -> None:
    one = keyed(tmp_path / "one", tmp_path / "store1", ["x", "y", "7"], 0)
    two = keyed(tmp_path / "two", tmp_path / "store2", ["y", "z", "7"], 10)
    with pytest.raises(ValueError, match=r"share 1 image: y \(same key, other bytes\)"):
        check_overlaps({"labelled": one, "validation": two})
    held = build_exclusion_set({"labelled": one, "validation": two})
    other = content_hash(b"other")
    assert held.reason("y", other) == "excluded: also in labelled"
    assert held.reason("z", other) == "excluded: also in validation"
    assert held.reason("7", other) is None
    assert held.reason(None, other) is None


def test_held_out_images_are_found_by_content(tmp_path: Path) -> None:
    sets = {
        name: read_content_hashes(
            manifest(folder(tmp_path / name, ["1.jpg", "2.jpg"], first), tmp_path / f"store {name}")
        )
        for name, first in (("labelled", 0), ("test", 1))
    }
    held = pickle.loads(pickle.dumps(build_exclusion_set(sets)))
    found = [held.reason("1.jpg", content_hash(jpeg(n))) for n in range(4)]
    assert found == ["excluded: also in labelled", "excluded: also in labelled", "excluded: also in test", None]
    assert held.digest == build_exclusion_set(sets).digest
    assert held.digest != build_exclusion_set({"labelled": sets["labelled"]}).digest


def test_every_hash_of_many_is_found_and_no_other() -> None:
    rng = np.random.default_rng(0)
    known = [rng.bytes(8) * 2 if n % 2 else bytes(8) + rng.bytes(8) for n in range(500)]  # halves that collide
    held = build_exclusion_set({"test": ContentHashes([str(n) for n in range(500)], known, False)})
    assert all(held.reason(None, digest) for digest in known)
    assert not any(held.reason(None, bytes(8) + rng.bytes(8)) for _ in range(100))
    assert build_exclusion_set({}).reason("x", known[0]) is None


def test_unreadable_images_are_skipped(tmp_path: Path) -> None:
    made = manifest(folder(tmp_path / "a", ["1.jpg", "2.jpg"]), tmp_path / "store")
    (tmp_path / "a/1.jpg").unlink()
    assert read_content_hashes(made).keys == ["2.jpg"]
