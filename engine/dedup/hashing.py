"""Content hashes of a labelled or evaluation set, computed once on Ray and kept: a resumed run does not read its images again."""

import pyarrow as pa

from engine.dedup.hash_step import hash_step
from engine.ground.run import Run
from engine.ground.steps import read_tables
from engine.images.collection import Collection, open_collection
from engine.images.manifest import Manifest
from engine.images.overlap import ContentHashes, ExclusionSet, build_exclusion_set, read_content_hashes
from engine.settings.data import ImagesSettings

REVISION = 1
HASHES = pa.schema([("key", pa.string()), ("hash", pa.binary(16))])


def hash_images(run: Run, collection: Collection) -> ContentHashes:
    """Keys and content hashes of every image of `collection` that can be read."""
    output = hash_step(run, collection, "hash", REVISION, hash_shard)
    table = pa.concat_tables([HASHES.empty_table(), *(table for _, table in read_tables(output, run.store.fs))])
    return ContentHashes(table["key"].to_pylist(), table["hash"].to_pylist(), collection.manifest.has_keys)


def hash_excluded(run: Run, images: ImagesSettings) -> ExclusionSet | None:
    """What the collections that `images.exclude` names exclude; None without any."""
    names = {f"exclude {number}": uri for number, uri in enumerate(images.exclude, 1)}
    hashes = {name: hash_images(run, open_collection(run, name, uri, images)) for name, uri in names.items()}
    return build_exclusion_set(hashes) if hashes else None


def hash_shard(manifest: Manifest, shard: int) -> pa.Table:
    """HASHES of the images of a shard."""
    found = read_content_hashes(manifest, [shard])
    return pa.table([found.keys, found.hashes], schema=HASHES)
