"""How a model's probabilities compare with soft or several true labels: pure functions of (n, C) arrays."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]

TINY = 1e-12


def kl_divergence(q: Floats, p: Floats) -> npt.NDArray[np.float64]:
    """KL(q || p) of each row in nats: 0 where they agree. Unlike cross-entropy it does not hold the entropy of q, so it can be compared from one
    teacher to the next.
    """
    q, p = np.asarray(q, np.float64), np.maximum(np.asarray(p, np.float64), TINY)
    return np.sum(np.where(q > 0, q * (np.log(np.maximum(q, TINY)) - np.log(p)), 0), axis=1)


def average_precision(truth: npt.NDArray[np.bool_], score: Floats) -> float:
    """Area under precision over recall of one class (n,): mean precision at each true image; images that tie stand at the end of their tie.

    nan where no image is true.
    """
    if not truth.any():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    hits, ordered = np.cumsum(truth[order]), score[order]
    ends = np.append(ordered[1:] != ordered[:-1], True)
    end = np.flatnonzero(ends)
    precision, recall = hits[end] / (end + 1), hits[end] / hits[-1]
    return float(np.sum(precision * np.diff(recall, prepend=0)))
