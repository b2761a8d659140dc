"""The collection that predictions are of, found again from what the labelling wrote down."""

from engine.ground.steps import Output, Store
from engine.images.collection import Collection
from engine.images.manifest import Manifest


def pool_of(store: Store, predictions: Output) -> Collection | None:
    """The collection that a finished predict step labelled; None when it was not written down."""
    plan = store.step_json(predictions.step, "plan.json")
    if "manifest" not in plan:
        return None
    folder = f"{store.root}/steps/{plan['manifest']}"
    return Collection("pool", Manifest.load(store.fs, folder, plan["collection"]))
