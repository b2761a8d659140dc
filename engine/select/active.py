"""Which images a person should label next: uncertain, disputed or unlike the others, under a budget a class.

Uncertainty and disagreement are scores like any other, so `TopK` picks under the budget, streaming and mergeable;
diversity needs embeddings and works on such a shortlist.
"""

import numpy as np
import numpy.typing as npt

from engine.select.scores import Half, margin, probability


def uncertainty(scores: Half) -> Half:
    """Minus the margin between the two best classes: `scores` (N, P >= 2) to (N,), highest for the most uncertain image."""
    return (-margin(scores)).astype(np.float16)


def disagreement(
    first_classes: npt.NDArray[np.unsignedinteger],
    first_scores: Half,
    second_classes: npt.NDArray[np.unsignedinteger],
    second_scores: Half,
) -> Half:
    """Total variation between two teachers' predictions of the same images, (N, P) each, to (N,) in 0..1.

    Only stored classes are compared: mass that one teacher stored and the other did not counts as disputed.
    """
    first, second = probability(first_scores), probability(second_scores)
    shared = np.zeros(len(first))
    for place in range(first_classes.shape[1]):
        same = second_classes == first_classes[:, place, None]
        shared += np.where(same, np.minimum(second, first[:, place, None]), 0).sum(axis=1)
    return np.clip(1 - shared, 0, 1).astype(np.float16)


def pick_dissimilar(
    hashes: npt.NDArray[np.uint64], classes: npt.NDArray[np.integer], budget: int, most: int
) -> npt.NDArray[np.intp]:
    """At most `budget` rows a class, each more than `most` bits from all that were taken before it, of whatever class.

    `hashes` (N,): perceptual hashes, within a class most wanted first. Sorted by class, in the order taken.
    """
    taken = np.empty(0, np.intp)
    for wanted in np.unique(classes):
        found = 0
        for row in np.flatnonzero(classes == wanted):
            if found == budget:
                break
            if not (np.bitwise_count(hashes[taken] ^ hashes[row]) <= most).any():
                taken = np.append(taken, row)
                found += 1
    return taken


def bits(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.float32]:
    """Hashes (N,) as points (N, 64): the square of a distance is the number of bits that differ."""
    return np.unpackbits(hashes.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1).astype(np.float32)


def diverse(
    embeddings: npt.NDArray[np.floating],
    classes: npt.NDArray[np.integer],
    budget: int,
    min_distance: float = 0.0,
) -> npt.NDArray[np.intp]:
    """At most `budget` rows a class that cover it best: greedy k-centre, each row the farthest from those taken before.

    `embeddings` (N, D), most wanted first: the first row of a class is always taken. Rows within `min_distance` of a taken
    one are its duplicates and never taken. Sorted by class, in the order taken; memory O(rows of a class).
    """
    taken: list[int] = []
    for wanted in np.unique(classes):
        rows = np.flatnonzero(classes == wanted)
        mine = embeddings[rows].astype(np.float64)
        distance = np.full(len(rows), np.inf)
        for _ in range(min(budget, len(rows))):
            farthest = int(np.argmax(distance))
            if distance[farthest] <= min_distance:
                break
            taken.append(int(rows[farthest]))
            distance = np.minimum(distance, np.linalg.norm(mine - mine[farthest], axis=1))
    return np.array(taken, dtype=np.intp)
