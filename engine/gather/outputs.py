"""Raw outputs of a network from what its predictions hold: log-odds of all classes and the log-sum-exp of the outputs (`energy`)."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.select.scores import classes_of, log_probability, scores_of


def raw_outputs(predictions: pa.Table, num_classes: int) -> npt.NDArray[np.float64]:
    """z (N, C) in the order of the classes: log p + energy. Log-odds are stored in float16, so an output of size 1 is known to about 0.002.

    Raises ValueError when the predictions do not hold what it takes.
    """
    classes = classes_of(predictions).astype(np.int64)
    if classes.shape[1] < num_classes or "energy" not in predictions.column_names:
        raise ValueError(
            f"raw outputs of {num_classes} classes need all of them and the energy: set predict.top_p={num_classes} and predict.extra_scores=[energy]"
        )
    z = np.empty((len(classes), num_classes))
    energy = predictions["energy"].to_numpy().astype(np.float64)
    np.put_along_axis(z, classes, log_probability(scores_of(predictions)) + energy[:, None], axis=1)
    return z


def output_targets(outputs: npt.NDArray[np.float64], truth: npt.NDArray[np.integer], truth_share: float) -> pa.Table:
    """Columns `classes` and `weights` of the targets a y + (1 - a) z (N, C), y the one-hot `truth` (N,) and a its share."""
    number, num_classes = outputs.shape
    mixed = (1 - truth_share) * outputs
    mixed[np.arange(number), truth] += truth_share
    offsets = pa.array(np.arange(number + 1, dtype=np.int32) * num_classes)
    classes = pa.array(np.tile(np.arange(num_classes, dtype=np.int32), number))
    lists = [
        pa.ListArray.from_arrays(offsets, values) for values in (classes, pa.array(mixed.ravel().astype(np.float32)))
    ]
    return pa.table(lists, names=["classes", "weights"])
