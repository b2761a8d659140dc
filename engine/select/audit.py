"""Label errors: images whose label a model that never saw them denies with confidence (fastai's out-of-fold way; confident disagreement).

A model scored on what it was trained on has memorised the wrong labels, too; so each image is scored by the model of the fold that left it out.
Confidence is a float16 log-odds score, so the order is exact, and ties break by the hash of the address.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.select.scores import classes_of, cut_for, order_of, probability, scores_of, tie_hash

Ints = npt.NDArray[np.int64]

SCORED = pa.schema(
    [
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("fold", pa.int32()),
        ("given", pa.int32()),
        ("predicted", pa.int32()),
        ("score", pa.float16()),
    ]
)
"""One labelled image as the model of its fold, which never saw it, sees it: class indices and the log-odds of the predicted one."""


def stratified_folds(labels: npt.NDArray[np.integer], folds: int, seed: int) -> Ints:
    """The fold of each of N images of class `labels`: dealt in a seeded order, class by class, so that neither a class's images nor all of them
    are spread less evenly than by one.

    Raises ValueError for a class with a single image: the model that leaves it out does not know the class.
    """
    counts = np.bincount(labels)
    if (counts == 1).any():
        raise ValueError(
            f"class {int(np.argmax(counts == 1))} has one labelled image, so that no model can judge it that has not seen it:"
            " label another, or take the class out"
        )
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    fold = np.empty(len(labels), np.int64)
    fold[order] = np.arange(len(labels)) % folds
    return fold


def scored(predictions: pa.Table, given: Ints, fold_of_image: Ints, left_out: int) -> pa.Table:
    """SCORED of the predictions of the model that left out fold `left_out`; `given` and `fold_of_image` (n,) are those of the same images."""
    assert (fold_of_image == left_out).all(), "an image was scored by a model that trained on it"
    columns = [
        predictions["shard"],
        predictions["row"],
        pa.array(fold_of_image.astype(np.int32)),
        pa.array(given.astype(np.int32)),
        pa.array(classes_of(predictions)[:, 0].astype(np.int32)),
        pa.array(np.ascontiguousarray(scores_of(predictions)[:, 0])),
    ]
    return pa.Table.from_arrays(columns, schema=SCORED)


def disagreements(table: pa.Table, top: int | None = None, above: float = 0.0) -> Ints:
    """Places in SCORED of the images whose label is denied with more than probability `above`, the most confident first, `top` at most."""
    score = table["score"].to_numpy()
    denied = (table["predicted"].to_numpy() != table["given"].to_numpy()) & (score > cut_for(above))
    places = np.flatnonzero(denied)
    tie = tie_hash(table["shard"].to_numpy()[places], table["row"].to_numpy()[places])
    order = np.lexsort((tie, -order_of(score[places]).astype(np.int64)))
    return places[order][:top]


def relabelled(table: pa.Table, above: float | None) -> Ints:
    """The class of each image of SCORED after relabelling what is denied with more than probability `above`; as given without one."""
    labels = table["given"].to_numpy().astype(np.int64)
    if above is not None:
        places = disagreements(table, above=above)
        labels[places] = table["predicted"].to_numpy()[places]
    return labels


@dataclass(frozen=True)
class AuditQuality:
    """How good a list of suspects is, where the true labels are known."""

    precision: dict[int, float]
    """Share of the first M suspects whose label is wrong, by M."""
    recall: float
    """Share of the wrong labels that the list holds; nan when none is wrong."""
    wrong: int
    """Wrong labels among all images."""


def audit_quality(suspects: Ints, given: Ints, truth: Ints, at: tuple[int, ...] = (10, 100, 1000)) -> AuditQuality:
    """Judge the places `suspects`, best first, by `given` and `truth` (N,): at each M that the list reaches, and at its end."""
    wrong = given != truth
    hits = np.cumsum(wrong[suspects])
    ends = sorted({m for m in at if m <= len(suspects)} | ({len(suspects)} if len(suspects) else set()))
    total = int(wrong.sum())
    return AuditQuality(
        {m: float(hits[m - 1] / m) for m in ends}, float(hits[-1] / total) if total and len(hits) else np.nan, total
    )


def confidence(table: pa.Table) -> npt.NDArray[np.float64]:
    """Probability of the predicted class of each image of SCORED."""
    return probability(table["score"].to_numpy())
