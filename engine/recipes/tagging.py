"""The pool's tags as a step of targets: read, canonicalised, counted, resampled."""

import time
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from engine.fit.source import GatheredSource
from engine.gather.pipeline import gather, training_set
from engine.gather.soft import file_digest
from engine.ground.progress import log_event
from engine.ground.record import StepRecord
from engine.ground.steps import Output, Step
from engine.labels import targets
from engine.labels.by_key import find_positions, read_table
from engine.labels.classes import ClassList
from engine.labels.tags import (
    Synonyms,
    TaggedImages,
    canonicalise,
    image_factors,
    read_synonyms,
    round_randomly,
    threshold_for,
)
from engine.recipes.context import RecipeContext
from engine.select.scores import tie_hash
from engine.settings.block import RUNTIME, Block
from engine.tables import schema

REVISION = 1
COIN = np.uint64(0xD1B54A32D192ED03)


class TagSettings(Block):
    """What the pool's images were tagged with, and how often each is drawn."""

    table: str = Field(
        description="CSV or Parquet with key and tags: a list, or text with tags between spaces or commas",
        json_schema_extra=RUNTIME,
    )
    synonyms: str | None = Field(
        None,
        description="CSV or Parquet with tag and canonical, e.g. WordNet's synsets: one label each (default: none)",
        json_schema_extra=RUNTIME,
    )
    vocabulary: list[str] | None = Field(
        None,
        description="tags to learn; those that match the target task matter more than their number (default: all)",
    )
    min_images: int = Field(1, ge=1, le=10**9, description="fewest images of a tag, without a vocabulary")
    max_tags: int | None = Field(
        None, ge=2, le=10**7, description="number of tags, the most frequent, without a vocabulary (default: all)"
    )
    resample: Literal["natural", "sqrt", "uniform"] = Field(
        "sqrt", description="how far rare tags are drawn more often"
    )
    length: float = Field(
        2.0,
        ge=1,
        le=10**6,
        description="draws per epoch over tagged images, which sets how often the rarest are repeated",
    )


def gather_tags(setup: RecipeContext, settings: TagSettings) -> tuple[ClassList, Output, GatheredSource]:
    """The vocabulary, the step of targets (schema.targets, `count` the draws of an image), and the training set of the tagged images.

    Images that also stand in a labelled or evaluation set are left out.
    """
    pool = setup.collections["pool"]
    inputs = {"table": file_digest(settings.table), "images": pool.digest}
    if settings.synonyms is not None:
        inputs["synonyms"] = file_digest(settings.synonyms)

    def work(step: Step) -> Output:
        started = time.time()
        table = read_table(settings.table, ("key", "tags"))
        if not {"key", "tags"} <= set(table.column_names):
            raise ValueError(
                f"{settings.table}: its columns are {', '.join(table.column_names)}; it needs key and tags"
            )
        place = find_positions(pool.manifest.keys()["key"], table["key"].cast(pa.string()), settings.table)
        synonyms = Synonyms() if settings.synonyms is None else read_synonyms(settings.synonyms)
        found = canonicalise(
            table["tags"],
            synonyms,
            given=settings.vocabulary,
            min_images=settings.min_images,
            max_tags=settings.max_tags,
        )
        addresses = pool.manifest.labels().select(["shard", "row"]).take(pa.array(place))
        made = as_targets(found, addresses, settings)
        draws = int(made["count"].to_numpy().sum())
        log_event(
            "tags", f"{made.num_rows} of {len(place)} images with {len(found.vocabulary)} tags, {draws} draws an epoch"
        )
        summary = {"images": made.num_rows, "draws": draws, "vocabulary": list(found.vocabulary.names)}
        return step.commit([step.put_part(0, made)], summary, started)

    output = setup.run.find_or_run_step("tags", StepRecord("tags", REVISION, settings, inputs), work)
    vocabulary = ClassList(tuple(output.summary["vocabulary"]))
    shards = gather(setup.run, "tags gather", output, setup.scope("pool"), vocabulary, check=True)
    return vocabulary, output, GatheredSource(shards, training_set(shards, setup.run.store, vocabulary))


def as_targets(found: TaggedImages, addresses: pa.Table, settings: TagSettings) -> pa.Table:
    """schema.targets of the images that have a tag; `addresses` (shard, row) of all N. The coin of a fractional draw is a hash of the address."""
    with_tags = found.lengths > 0
    t = threshold_for(found, settings.length * int(with_tags.sum()), settings.resample)
    shard, row = (addresses[name].to_numpy() for name in ("shard", "row"))
    coin = (tie_hash(shard, row) * COIN) / np.float64(2**64)
    count = round_randomly(image_factors(found, t, settings.resample), coin)[with_tags]
    lengths = found.lengths[with_tags]
    target = targets.from_flat(lengths, found.flat, np.repeat(1 / lengths, lengths), len(found.vocabulary))
    kept = addresses.filter(pa.array(with_tags)).combine_chunks()
    columns = [*kept.columns, pa.array(count), *target]
    form = schema.targets(len(found.vocabulary), found.vocabulary.hash)
    return pa.Table.from_arrays(columns, schema=form)
