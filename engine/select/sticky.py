"""scikit-learn's way (SelfTrainingClassifier): a label once accepted never changes. The other way, relabelling everything each generation,
needs no code of its own."""

import numpy as np
import pyarrow as pa

from engine.select.addresses import addresses
from engine.select.ranks import ranked_by_class


def carry_over(accepted: pa.Table, fresh: pa.Table) -> pa.Table:
    """Pseudo-labels of earlier generations as they were, plus those of images that had none.

    Sorted by class, the earlier ones ranked first. Both tables are `schema.pseudo_labels`; an image's earlier classes and targets stay, whatever
    the new teacher predicts. Raises ValueError when the tables differ in schema or class list.
    """
    if not accepted.schema.equals(fresh.schema, check_metadata=True):
        raise ValueError("pseudo-labels of the two generations differ in schema or class list")
    known = np.isin(addresses(fresh), addresses(accepted))
    together = pa.concat_tables([accepted, fresh.filter(pa.array(~known))])
    generation = np.repeat([0, 1], [len(accepted), len(together) - len(accepted)])
    return ranked_by_class(together, np.asarray(together["rank"]), generation)
