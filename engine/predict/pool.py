"""The collection that predictions are of, found again from what the predict step wrote down."""

import pyarrow.compute as pc

from engine.ground.steps import Output, Store, read_output
from engine.images.collection import Collection
from engine.images.file_listing import without_credentials
from engine.images.manifest import Manifest
from engine.settings.predict import PredictSettings

SHOWN = 3
"""Most keys listed in a message."""


def pool_of(store: Store, predictions: Output) -> Collection | None:
    """The collection that a finished predict step labelled; None when it was not written down."""
    plan = store.step_json(predictions.step, "plan.json")
    if "manifest" not in plan:
        return None
    folder = f"{store.root}/steps/{plan['manifest']}"
    return Collection("pool", Manifest.load(store.fs, folder, plan["collection"]))


def settings_of(store: Store, predictions: Output) -> PredictSettings:
    """The settings that a finished predict step was made with, from its record; those that name no step are at their default."""
    record = store.step_json(predictions.step, "record.json").get("settings", {})
    return PredictSettings(**{name: value for name, value in record.items() if name in PredictSettings.model_fields})


def predictions_of(store: Store, selection: Output) -> list[Output]:
    """The predict steps whose contents a finished select step read, by the digest in its record; collections with the same images under other names
    have several. Raises ValueError when there is none."""
    digest = store.step_json(selection.step, "record.json").get("inputs", {}).get("predictions")
    names = (name for name in store.steps() if name.startswith("predict-"))
    found = [output for name in names if (output := read_output(store, name)) and output.digest == digest]
    if not found:
        raise ValueError(f"{selection.step}: its predictions are no longer in {store.uri}")
    return found


def check_same_pool(store: Store, selection: Output, pool: Collection) -> Output:
    """The predictions that `selection` was made from. Its addresses are rows of the collection that was predicted as it was listed then.

    Raises ValueError with the difference unless `pool` is that collection, image by image.
    """
    found = predictions_of(store, selection)
    for predictions in found:
        if store.step_json(predictions.step, "record.json").get("inputs", {}).get("images") == pool.digest:
            return predictions
    before = pool_of(store, found[0])
    difference = "what was predicted is not written down" if before is None else _difference(before, pool)
    raise ValueError(
        f"{selection.step}: selected from another collection than {without_credentials(pool.manifest.uri)} is now: {difference}."
        " Predict and select again, or restore the collection."
    )


def _difference(before: Collection, now: Collection) -> str:
    """How the collection that was predicted differs from the present one, in one line."""
    lines = [
        f"{before.manifest.num_rows:,} images then ({without_credentials(before.manifest.uri)}), {now.manifest.num_rows:,} now"
    ]
    if "parquet" in (before.manifest.kind, now.manifest.kind):  # keys of rows that are gone cannot be read
        old, new = (pc.unique(one.manifest.shards["path"]) for one in (before, now))
    else:
        old, new = (one.manifest.keys()["key"] for one in (before, now))
    for keys, others, what in ((new, old, "added"), (old, new, "removed")):
        own = pc.filter(keys, pc.invert(pc.is_in(keys, value_set=others)))
        if len(own):
            more = f" and {len(own) - SHOWN:,} more" if len(own) > SHOWN else ""
            lines.append(f"{what}: {', '.join(own[:SHOWN].to_pylist())}{more}")
    if len(lines) == 1:
        lines.append("the same names, but other contents, labels or shards")
    return "; ".join(lines)
