"""Near duplicates: pairs as by comparing all with all, planted copies found at a stated rate, on Ray the same for any split."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageEnhance

from engine.dedup import near_duplicates as on_ray
from engine.dedup.hash_pairs import bucket_of, connected_groups, masks, near_pairs, repeated
from engine.dedup.near_duplicates import find_near_duplicates, hash_shard
from engine.dedup.perceptual import distance, hashes, thumbnail
from engine.ground.run import Run
from engine.ground.steps import Store, read_tables
from engine.images.collection import open_collection
from engine.settings.cluster import ClusterSettings
from engine.settings.data import SourceSettings


def planted(seed: int, count: int = 400) -> np.ndarray:
    """Random hashes, half of them copies of others with up to 12 bits turned."""
    random = np.random.default_rng(seed)
    values = random.integers(0, 2**64, count, dtype=np.uint64)
    for i in range(count // 2):
        turned = np.bitwise_or.reduce(
            np.uint64(1) << random.choice(64, random.integers(1, 13), False).astype(np.uint64)
        )
        values[i] = values[-1 - i] ^ turned
    return values


@pytest.mark.parametrize("most", [1, 3, 4, 8])
@pytest.mark.parametrize("rows", [400, 10**7])
def test_pairs_are_those_of_all_with_all(most: int, rows: int) -> None:
    """Whatever the number of rows makes the tables look like, and however each table is shared out, nothing is missed."""
    values = np.unique(planted(most))
    apart = distance(values[:, None], values[None])
    first, second = np.nonzero(np.triu(apart <= most, 1))
    wanted = {(int(values[a]), int(values[b])) for a, b in zip(first, second, strict=True)}
    assert len(wanted) > 10
    found: set[tuple[int, int]] = set()
    for mask in masks(rows, most):
        share = bucket_of(values, mask, 3)
        for one in range(3):
            found |= {(int(a), int(b)) for a, b in near_pairs(values[share == one], mask, most)}
    assert found == wanted


def test_groups_are_what_pairs_connect() -> None:
    pairs = np.array([[1, 2], [2, 5], [7, 7], [8, 9]], np.uint64)
    values, group = connected_groups(pairs)
    assert values.tolist() == [1, 2, 5, 7, 8, 9]
    assert [group[0] == g for g in group] == [True, True, True, False, False, False]
    assert len(set(group.tolist())) == 3
    assert repeated(np.array([3, 4, 3, 3], np.uint64)).tolist() == [[3, 3]]


def encoded(image: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


CHANGES = {
    "encoded again": lambda image: encoded(image, 60),
    "resized": lambda image: encoded(image.resize((40, 40), Image.Resampling.BICUBIC)),
    "brighter": lambda image: encoded(ImageEnhance.Brightness(image).enhance(1.15)),
    "cropped": lambda image: encoded(image.crop((1, 1, image.width, image.height))),
}
"""What is done to a copy, and below which share of the copies is found within 8 bits."""
RECALL = {"encoded again": 0.99, "resized": 0.99, "brighter": 0.98, "cropped": 0.7}


def hashed(images: list[bytes]) -> np.ndarray:
    return hashes(torch.stack([thumbnail(image) for image in images]))


def test_planted_copies_are_found_and_others_are_not(cifar10: Path) -> None:
    """Of 300 photographs each copy is found at its stated rate; of 4.5 M pairs of different ones at most 1 in 500,000 is merged."""
    table = pq.read_table(sorted(cifar10.glob("*.parquet"))[1], columns=["image"]).slice(0, 3000)
    originals = [one if isinstance(one, bytes) else one["bytes"] for one in table["image"].to_pylist()]
    values = hashed(originals)
    opened = [Image.open(io.BytesIO(one)).convert("RGB") for one in originals[:300]]
    for name, change in CHANGES.items():
        found = distance(values[:300], hashed([change(image) for image in opened])) <= 8
        assert found.mean() >= RECALL[name], name
    merged = (distance(values[:, None], values[None]) <= 8).sum() - len(values)
    assert merged / 2 <= len(values) * (len(values) - 1) / 2 / 500_000


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_likeness_of_a_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies in the pool are a group, those near a known set are told apart from them, broken images are passed over; for any
    number of shares the same."""
    random = np.random.default_rng(0)
    drawn = [Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).resize((40, 40)) for _ in range(12)]
    pool = [encoded(image, 95) for image in drawn]
    pool[5], pool[7] = encoded(drawn[2], 50), CHANGES["brighter"](drawn[2])
    pool[8], pool[9] = pool[4], b"\xff\xd8\xff torn"
    pq.write_table(pa.table({"image": pool}), tmp_path / "pool.parquet")
    pq.write_table(pa.table({"image": [encoded(drawn[1], 40), encoded(drawn[9], 95)]}), tmp_path / "test.parquet")
    source = SourceSettings(rows_per_shard=4)
    for shares in (1, 4):
        monkeypatch.setattr(on_ray, "ROWS_AT_ONCE", 16 // shares)
        run = Run(Store(str(tmp_path / f"store {shares}")), "r", ClusterSettings())
        collections = {
            name: open_collection(run, name, str(tmp_path / f"{name}.parquet"), source) for name in ("pool", "test")
        }
        assert hash_shard(collections["pool"].manifest, 2)["row"].to_pylist() == [0, 2, 3]
        output = find_near_duplicates(run, "likeness", collections["pool"], {"test": collections["test"]}, 6)
        grouped, close = (table for _, table in read_tables(output, run.store.fs))
        by_group: dict[int, set[int]] = {}
        for one in grouped.to_pylist():
            by_group.setdefault(one["group"], set()).add(4 * one["shard"] + one["row"])
        assert sorted(map(sorted, by_group.values())) == [[2, 5, 7], [4, 8]]
        assert [4 * one["shard"] + one["row"] for one in close.to_pylist()] == [1]
        assert output.summary == {"groups": 2, "grouped": 5, "near known": 1, "known": {"test": 1}}
