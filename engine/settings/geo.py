"""Settings of the jobs that work on scenes: rasters that lie on the earth."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from engine.settings.block import Block

Band = Annotated[int, Field(ge=1, le=10_000)]
Percent = Annotated[float, Field(ge=0, le=100)]


class BandSettings(Block):
    """How the bands of a scene become red, green and blue in 0-255."""

    bands: list[Band] | None = Field(
        None,
        description="bands that are red, green and blue, counted from 1; one band is grey (default: all of a scene with one or three)",
    )
    scale: list[tuple[float, float]] | None = Field(
        None,
        description="values that become 0 and 255: one pair for all bands or one per band (default: percentiles; 8-bit bands as they are)",
    )
    percentiles: tuple[Percent, Percent] | None = Field(
        None,
        description="percentiles of each band of a scene that become 0 and 255 (default: 1 and 99 of bands that are not 8-bit)",
    )

    @field_validator("bands")
    @classmethod
    def _one_or_three(cls, bands: list[int] | None) -> list[int] | None:
        if bands is not None and len(bands) not in (1, 3):
            raise ValueError(f"networks see one band or three, and {len(bands)} are named")
        return bands

    @model_validator(mode="after")
    def _limits_rise(self) -> Self:
        for low, high in [*(self.scale or []), *([self.percentiles] if self.percentiles else [])]:
            if low >= high:
                raise ValueError(f"a scale has its lower limit first: [{high:g}, {low:g}], not [{low:g}, {high:g}]")
        if self.scale is not None and self.percentiles is not None:
            raise ValueError("scale gives the limits and percentiles looks for them: set one of the two")
        if self.scale is not None and self.bands is not None and len(self.scale) not in (1, len(self.bands)):
            raise ValueError(f"{len(self.scale)} scales for {len(self.bands)} bands: give one, or one per band")
        return self


class TilesSettings(Block):
    """The windows of a scene that are images of a collection."""

    size: int = Field(256, ge=2, le=16_384, description="side of a tile in pixels of the scene")
    stride: int | None = Field(
        None, ge=1, le=16_384, description="pixels from tile to tile; below size they overlap (default: size)"
    )
    min_valid: float = Field(0.5, ge=0, le=1, description="least share of a tile's pixels with data")


class SplitSettings(Block):
    """Validation by blocks of the earth's surface: neighbouring tiles show the same things, so single tiles are never drawn."""

    share: float = Field(0.2, gt=0, lt=1, description="share of the blocks that are validation")
    block: float = Field(gt=0, le=10**9, description="side of a block in units of the scenes' CRS, such as metres")
    margin: float = Field(
        0.0,
        ge=0,
        le=10**9,
        description="least distance of labelled and pool tiles from validation blocks, in the same units",
    )
    seed: int = Field(0, ge=0, le=2**31, description="random state of the choice of blocks")


class ScenesSettings(Block):
    """Scenes, and how they are seen."""

    scenes: str = Field(description="GeoTIFF or another raster, a folder of them, or a pattern such as scenes/*.tif")
    out: str = Field(description="folder for what the job writes")
    bands: BandSettings = Field(BandSettings(), description="bands and their scaling")


class TilesJobSettings(ScenesSettings):
    """`jobs.tiles`: tables of tiles, each a row that names a window of a scene."""

    tiles: TilesSettings = Field(TilesSettings(), description="windows")
    split: SplitSettings | None = Field(None, description="validation tiles (default: none)")
    masks: str | None = Field(
        None,
        description="folder of masks on the scenes' grids with the scenes' names: one band of class indices, 255 is ignored (default: a pool)",
    )


class VectorSettings(Block):
    """A layer of lines, polygons or points."""

    uri: str = Field(description="GeoPackage, GeoJSON, Shapefile, or another file that GDAL reads")
    layer: str | None = Field(None, description="name of the layer (default: the only one)")
    crs: str | None = Field(None, description="CRS of a file that has none, such as EPSG:4326 (default: the file's)")


class FeatureSettings(Block):
    """How features are drawn into masks."""

    label: str | None = Field(None, description="class of the pixels (default: the name of the rule)")
    where: str | None = Field(
        None, description="condition on the attributes in SQL, such as highway = 'primary' (default: all features)"
    )
    width: float = Field(
        0.0, ge=0, le=10_000, description="width of lines, diameter of points; polygons grow by half of it"
    )
    ignore: float = Field(0.0, ge=0, le=10_000, description="width of the ignored band on each side")
    unit: Literal["pixels", "metres"] = Field("pixels", description="unit of width and ignore")


class RasteriseJobSettings(ScenesSettings):
    """`jobs.rasterise`: weak masks from vectors, and tables of tiles."""

    vectors: VectorSettings = Field(description="what is drawn")
    features: dict[str, FeatureSettings] = Field(
        min_length=1, description="rules by name, drawn in this order, later ones on top"
    )
    background: str = Field("background", description="name of class 0, where nothing is drawn")
    absent: Literal["negative", "ignore"] = Field(
        "negative", description="pixels without a feature: of class 0, or ignored because the map may lack features"
    )
    min_features: int = Field(
        1, ge=0, le=10**6, description="fewest features in a labelled tile; tiles with fewer become the pool"
    )
    tiles: TilesSettings = Field(TilesSettings(), description="windows")
    split: SplitSettings | None = Field(None, description="validation tiles (default: none)")

    @property
    def classes(self) -> list[str]:
        """Names of the classes in index order: the background, then the rules' in their order."""
        return list(dict.fromkeys([self.background, *(rule.label or name for name, rule in self.features.items())]))

    @model_validator(mode="after")
    def _classes_fit(self) -> Self:
        if len(self.classes) > 255:
            raise ValueError(f"a mask has at most 255 classes, 255 is ignored: features name {len(self.classes)}")
        return self


class PolygonSettings(Block):
    """Outlines of what was found, as vectors."""

    min_area: float = Field(
        0.0, ge=0, le=10**9, description="area below which a polygon is dropped, in square units of the CRS"
    )
    simplify: float = Field(
        0.0,
        ge=0,
        le=10**9,
        description="distance by which outlines may be simplified, in units of the CRS (default: 0, none)",
    )


class MapJobSettings(ScenesSettings):
    """`jobs.map`: classes and confidence of whole scenes."""

    model: str = Field(description="model folder (config.json + model.safetensors) of a network of pixels")
    overlap: int | None = Field(
        None, ge=0, le=16_384, description="pixels that neighbouring windows share (default: a quarter of the window)"
    )
    trim: int | None = Field(
        None, ge=0, le=16_384, description="pixels at the edges of a window that are not used (default: overlap / 4)"
    )
    batch_size: int = Field(16, ge=1, le=10_000, description="windows per batch")
    views: Literal["one", "flip"] = Field("one", description="flip: averaged over a window and its mirror")
    backend: Literal["channels_last", "eager", "frozen", "compiled", "bf16", "fp16"] = Field(
        "channels_last", description="way to run the network; bf16 and fp16 change the map slightly"
    )
    temperature: float = Field(1.0, gt=0, le=1000, description="divisor of the logits")
    polygons: PolygonSettings | None = Field(
        None, description="write a GeoPackage of all classes but the first (default: none)"
    )
