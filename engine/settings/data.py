"""Settings of where images lie and how they are read."""

from typing import Literal

from pydantic import Field

from engine.settings.block import Block


class SourceSettings(Block):
    """How a collection of images is read: a folder, Parquet file(s), tars or a table of URIs, local or on any pyarrow filesystem. A pattern such as
    `/images/{00..99}.tar` or `s3://bucket/*/train-*.parquet` is one collection; a `.txt` file lists a path or URI per line."""

    image_column: str | None = Field(None, description="Parquet column of encoded bytes (default: one of a usual name)")
    key_column: str | None = Field(None, description="column of the images' keys (default: file and row)")
    label_column: str | None = Field(None, description="column of the labels (default: one of a usual name)")
    extensions: list[str] | None = Field(
        None,
        description="endings of the images' file names, `input.jpg` or `.` (no ending) too (default: those of known formats)",
    )
    encoding: str | None = Field(
        None,
        description="encoding of CSV files and of names in tars, such as latin-1 (default: UTF-8, or as a mark says)",
    )
    rows_per_shard: int = Field(2048, ge=1, le=10_000_000, description="rows per shard, the unit of prediction work")
    shard_bytes: int = Field(64 * 2**20, ge=1, le=2**36, description="size of a shard of loose files in bytes, about")
    max_rejected_percent: float = Field(
        1.0, ge=0, le=100, description="share of rejected images in percent, above which a step fails"
    )


class ImagesSettings(SourceSettings):
    """One collection, for the jobs that work on one."""

    uri: str = Field(description="folder, Parquet file(s) or table of URIs")
    exclude: list[str] = Field(
        default_factory=list, description="collections whose images are excluded, by exact content"
    )


class DataSettings(SourceSettings):
    """The collections of a run."""

    labelled: str = Field(description="labelled collection to train on: class folders, or a table with labels")
    pool: str | None = Field(None, description="unlabelled collection (default: none)")
    validation: str | None = Field(None, description="labelled collection that guides decisions (default: none)")
    test: str | None = Field(None, description="labelled collection for the final score alone (default: none)")
    exact: str | None = Field(
        None, description="few labelled images of exact labels, where those of `labelled` are weak (default: none)"
    )
    masks: dict[Literal["labelled", "exact", "validation", "test"], str] = Field(
        default_factory=dict,
        description="task=segment: masks of each labelled collection, images of class indices (255 is ignored) with the names of their images",
    )
    classes: list[str] | None = Field(
        None, description="class names in index order (default: the sorted names of the labelled set)"
    )
