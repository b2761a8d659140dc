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


def predictions_of(store: Store, selection: Output) -> Output:
    """The predict step that a finished select step read. Raises ValueError when it is no longer in the store."""
    name = selection.summary["predictions"]
    if (found := read_output(store, name)) is None:
        raise ValueError(
            f"{selection.step}: its predictions {name} are no longer in {store.uri}; predict and select again"
        )
    return found


def check_same_pool(store: Store, selection: Output, pool: Collection) -> Output | None:
    """The predictions that `selection` was made from; None for targets of a table, which were matched by key. A selection's addresses are rows of the
    collection that was predicted, as it was listed then.

    Raises ValueError with the difference unless `pool` is that collection, image by image.
    """
    if "predictions" not in selection.summary:
        return None
    predictions = predictions_of(store, selection)
    predicted = store.step_json(predictions.step, "record.json")["inputs"]["images"]
    if predicted.partition("-")[0] == pool.manifest.digest:
        return predictions
    before = pool_of(store, predictions)
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
