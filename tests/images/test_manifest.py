"""The manifest: images are read correctly for every kind, division into shards and choice of rows."""

import json
import pickle
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.ground import storage
from engine.images.manifest import Manifest
from engine.images.sources import list_images
from engine.settings.data import SourceSettings
from engine.tables import schema

from .making import everything, folder, jpeg, manifest, tar

Source = tuple[Path, list[tuple[str, bytes, str]]]


@pytest.fixture(params=["folder", "parquet", "parquet with keys", "uris", "webdataset"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    """A collection of 23 images of each kind, and (key, bytes, label) of all in order."""
    root = tmp_path / "source"
    root.mkdir()
    data = [jpeg(n, width=20 + n) for n in range(23)]
    labels = ["cat" if n % 3 else "dog" for n in range(23)]
    match request.param:
        case "folder":
            names = sorted(f"{label}/{n:02d}.jpg" for n, label in enumerate(labels))
            for name in names:
                (root / name).parent.mkdir(exist_ok=True)
                (root / name).write_bytes(data[int(name[4:6])])
            return root, [(name, data[int(name[4:6])], name[:3]) for name in names]
        case "webdataset":
            for first in (0, 14):
                members: dict[str, bytes] = {}
                for n in range(first, min(first + 14, 23)):
                    members |= {f"{n:02d}.jpg": data[n], f"{n:02d}.cls": labels[n].encode()}
                tar(root / f"{first:02d}.tar", members)
            keys = [f"{0 if n < 14 else 14:02d}.tar/{n:02d}.jpg" for n in range(23)]
        case "uris":
            keys = [f"k{n}" for n in range(23)]
            (root / "images").mkdir()
            for n, content in enumerate(data):
                (root / f"images/{n}.jpg").write_bytes(content)
            where = [f"images/{n}.jpg" if n % 2 else f"file://{root}/images/{n}.jpg" for n in range(23)]
            pq.write_table(pa.table({"uri": where, "key": keys, "label": labels}), root / "t.parquet")
            root /= "t.parquet"
        case kind:
            struct = pa.array([{"bytes": content, "path": "x"} for content in data])
            columns: dict[str, Any] = {"image": struct, "label": labels}
            if kind == "parquet with keys":
                columns["key"] = [f"k{n}" for n in range(23)]
            made = pa.table(columns)
            pq.write_table(made.slice(0, 17), root / "a.parquet", row_group_size=6)
            pq.write_table(made.slice(17), root / "b.parquet", row_group_size=2)
            keys = columns.get("key") or [f"a.parquet:{n}" if n < 17 else f"b.parquet:{n - 17}" for n in range(23)]
    return root, list(zip(keys, data, labels, strict=True))


@pytest.mark.parametrize("rows_per_shard", [1, 3, 7, 100])
def test_every_image_has_exactly_one_address(source: Source, rows_per_shard: int, tmp_path: Path) -> None:
    root, expected = source
    made = manifest(root, tmp_path / "store", rows_per_shard=rows_per_shard)
    table = everything(made, batch_rows=4)
    assert table.drop_columns("shard").schema.equals(schema.IMAGES)
    found = zip(*(table[name].to_pylist() for name in ("key", "image", "label")), strict=True)
    assert list(found) == expected
    assert max(made.rows) <= rows_per_shard
    assert (made.num_rows, made.num_shards) == (23, len(made.rows))
    addresses = [(shard, row) for shard, rows in enumerate(made.rows) for row in range(rows)]
    assert list(zip(table["shard"].to_pylist(), table["row"].to_pylist(), strict=True)) == addresses
    for name in ("key", "label"):
        column = made.keys() if name == "key" else made.labels()
        assert column.to_pylist() == table.select(["shard", "row", name]).to_pylist()
    for (key, _, _), (shard, row) in zip(expected, addresses, strict=True):
        assert made.find(key) == [(shard, row)]
        assert made.resolve(shard, np.array([row])) == [key]
    assert made.find("none") == []
    assert made.label_counts == {"cat": 15, "dog": 8}
    assert made.classes == ["cat", "dog"]


def test_rows_of_a_shard_equal_those_of_the_full_read(source: Source, tmp_path: Path) -> None:
    root, _ = source
    rng = np.random.default_rng(0)
    for rows_per_shard in (4, 9, 50):
        made = manifest(root, tmp_path / f"store{rows_per_shard}", rows_per_shard=rows_per_shard)
        for shard in rng.integers(made.num_shards, size=12):
            whole = pa.Table.from_batches(list(made.read(shard)))
            rows = np.flatnonzero(rng.random(made.rows[shard]) < rng.random())
            batches = list(made.read(shard, rows, batch_rows=int(rng.integers(1, 9))))
            found = pa.Table.from_batches(batches, schema.IMAGES)
            assert found.equals(whole.take(pa.array(rows)))
            assert found["row"].to_pylist() == rows.tolist()


def test_labels_and_keys_of_some_shards(source: Source, tmp_path: Path) -> None:
    root, _ = source
    made = manifest(root, tmp_path / "store", rows_per_shard=5)
    labels = made.labels()
    assert made.labels([2]).to_pylist() == [one for one in labels.to_pylist() if one["shard"] == 2]
    assert made.keys([]).num_rows == 0


def test_a_manifest_can_be_pickled(source: Source, tmp_path: Path) -> None:
    root, expected = source
    made = manifest(root, tmp_path / "store", rows_per_shard=5)
    list(made.read(0))
    made.find(expected[0][0])
    copy = pickle.loads(pickle.dumps(made))
    assert everything(copy).equals(everything(made))


def test_a_moved_collection_is_read_at_its_new_location(tmp_path: Path) -> None:
    before = manifest(folder(tmp_path / "old", ["a.jpg", "b.jpg"]), tmp_path / "store")
    images = everything(before)
    (tmp_path / "old").rename(tmp_path / "new")
    after = Manifest.load(before.fs, before.folder, str(tmp_path / "new"))
    assert everything(after).equals(images)


def test_large_row_groups_are_decoded_once_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"image": [jpeg(n) for n in range(40)]}), tmp_path / "a.parquet")
    made = manifest(tmp_path / "a.parquet", tmp_path / "store", rows_per_shard=6)
    streams = Mock(wraps=pq.ParquetFile.iter_batches)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *args, **settings: streams(*args, **settings))
    in_order = everything(made)
    assert streams.call_count == 1
    backwards = [pa.Table.from_batches(list(made.read(shard))) for shard in reversed(range(made.num_shards))]
    assert pa.concat_tables(backwards[::-1]).equals(in_order.drop_columns("shard"))


def test_interleaved_readers_do_not_affect_each_other(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [jpeg(n) for n in range(30)]}), tmp_path / "a.parquet", row_group_size=11)
    made = manifest(tmp_path / "a.parquet", tmp_path / "store", rows_per_shard=7)
    expected = everything(made, 2).drop_columns("shard")
    streams = [made.read(shard, batch_rows=2) for shard in range(made.num_shards)]
    parts: list[list[pa.RecordBatch]] = [[] for _ in streams]
    for _ in range(7):
        for part, stream in zip(parts, streams, strict=True):
            part += [batch for batch in [next(stream, None)] if batch is not None]
    assert pa.Table.from_batches([batch for part in parts for batch in part]).equals(expected)


def test_missing_loose_images_are_null(tmp_path: Path) -> None:
    made = manifest(folder(tmp_path / "images", ["a.jpg", "b.jpg", "c.jpg"]), tmp_path / "store")
    (tmp_path / "images/b.jpg").unlink()
    (tmp_path / "images/c.jpg").write_bytes(b"")
    assert [None if image is None else len(image) for image in everything(made)["image"].to_pylist()] == [
        len(jpeg(0)),
        None,
        0,
    ]


def test_unreadable_uris_are_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.images.byte_reader.PAUSES", ())
    (tmp_path / "t.csv").write_text("uri\nhttp://127.0.0.1:1/a.jpg\ngopher://x/y\n/no/where.jpg\nfile:///no/such.jpg\n")
    assert everything(manifest(tmp_path / "t.csv", tmp_path / "store"))["image"].null_count == 4


def test_images_on_the_web(tmp_path: Path) -> None:
    folder(tmp_path / "www", ["a.jpg", "b.jpg"])
    serve = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "www"))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_port}"
        (tmp_path / "t.csv").write_text("".join(f"{line}\n" for line in ("url", f"{root}/b.jpg", f"{root}/none.jpg")))
        images = everything(manifest(tmp_path / "t.csv", tmp_path / "store"))["image"].to_pylist()
        server.shutdown()
    assert images == [jpeg(1), None]


def test_unreadable_containers_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [jpeg(n) for n in range(5)]}), tmp_path / "a.parquet")
    made = manifest(tmp_path, tmp_path / "store", rows_per_shard=2)
    with pytest.raises(ValueError, match=r"shard 3 of 3"):
        list(made.read(3))
    with pytest.raises(ValueError, match="rows 1 to 2 of shard 0, which has 2"):
        list(made.read(0, np.array([1, 2])))
    pq.write_table(pa.table({"image": [jpeg(0)]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a.parquet: has 1 rows, fewer than when it was listed"):
        list(made.read(1))
    (tmp_path / "a.parquet").write_bytes(b"gone")
    with pytest.raises(ValueError, match=r"a.parquet: not a readable Parquet file"):
        list(made.read(0))
    (tmp_path / "tars").mkdir()
    tar(tmp_path / "tars/x.tar", {"0.jpg": jpeg(0)})
    tars = manifest(tmp_path / "tars", tmp_path / "store2")
    (tmp_path / "tars/x.tar").rename(tmp_path / "tars/y.tar")
    with pytest.raises(ValueError, match=r"x.tar: tar cannot be opened"):
        list(tars.read(0))


def test_manifests_that_cannot_be_loaded(tmp_path: Path) -> None:
    fs, store = storage.resolve(str(tmp_path / "store"))
    with pytest.raises(ValueError, match="no manifest here"):
        Manifest.load(fs, store)
    manifest(folder(tmp_path / "images", ["a.jpg"]), tmp_path / "store")
    about = json.loads((tmp_path / "store/manifest.json").read_text())
    (tmp_path / "store/manifest.json").write_text(json.dumps(about | {"schema_version": 99}))
    with pytest.raises(ValueError, match="schema version 99, this engine reads"):
        Manifest.load(fs, store)
    (tmp_path / "store/manifest.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        Manifest.load(fs, store)


def test_collections_on_s3(tmp_path: Path, s3: str) -> None:
    fs, root = storage.resolve(s3.format("images"))
    names = ["cat/1.jpg", "cat/2.jpg", "dog/deep/3.jpg"]
    for seed, name in enumerate(names):
        storage.put(fs, f"{root}/folder/{name}", jpeg(seed))
    pq.write_table(pa.table({"image": [jpeg(n) for n in range(9)]}), tmp_path / "t.parquet", row_group_size=4)
    storage.put(fs, f"{root}/t.parquet", (tmp_path / "t.parquet").read_bytes())
    tar(tmp_path / "t.tar", {f"{n}.jpg": jpeg(n) for n in range(4)})
    storage.put(fs, f"{root}/t.tar", (tmp_path / "t.tar").read_bytes())
    uris = f"uri\nfolder/{names[0]}\ns3://bucket/images/folder/{names[1]}\ns3://bucket/images/none.jpg\n"
    storage.put(fs, f"{root}/t.csv", uris.encode())
    collections = {"folder": 3, "t.parquet": 9, "t.tar": 4, "t.csv": 3}
    for name, count in collections.items():
        uri = s3.format(f"images/{name}")
        made = Manifest.save(list_images(uri, SourceSettings(rows_per_shard=2)), fs, f"{root}/store/{name}")
        assert "secret" not in storage.get(fs, f"{root}/store/{name}/manifest.json").decode()
        table = everything(pickle.loads(pickle.dumps(made)))
        assert table.num_rows == count
        assert table["image"].to_pylist() == [jpeg(n) if (name, n) != ("t.csv", 2) else None for n in range(count)]
    local = list_images(str(folder(tmp_path / "folder", names)), SourceSettings(rows_per_shard=2))
    assert local.digest == list_images(s3.format("images/folder"), SourceSettings(rows_per_shard=2)).digest


def test_cifar10(cifar10: Path, tmp_path: Path) -> None:
    made = manifest(cifar10, tmp_path / "store", rows_per_shard=1000, labelled=True)
    assert len(made.classes) == 10
    assert made.labels()["label"].null_count == 0
    assert pa.Table.from_batches(list(made.read(3)))["key"].to_pylist() == made.keys([3])["key"].to_pylist()
