"""True labels mixed into predictions: the sparse form equals the dense formula, and hard labels at a share of 1."""

import numpy as np
import pyarrow as pa
import pytest

from engine.labels.mixture import mix_dense, mix_table, mix_targets
from engine.labels.targets import check, dense, hard, sparse
from engine.tables import schema

C, P, N = 6, 3, 200


def answers(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    classes = np.stack([rng.permutation(C)[:P] for _ in range(N)])
    weights = np.sort(rng.dirichlet(np.ones(P + 1), N), axis=1)[:, :0:-1]
    return classes, weights


@pytest.mark.parametrize("share", [0.0, 0.2, 0.9, 1.0])
def test_sparse_mixing_is_dense_mixing(share: float) -> None:
    targets, truth = sparse(*answers(), C), np.random.default_rng(1).integers(0, C, N)
    made = mix_targets(targets, truth, share, C)
    check(made, C, "made")
    np.testing.assert_allclose(dense(made, C), mix_dense(np.eye(C)[truth], dense(targets, C), share), atol=1e-6)


def test_whole_distributions_leave_nothing_for_others() -> None:
    whole = np.random.default_rng(0).dirichlet(np.ones(C), N)
    truth = np.arange(N) % C
    made = mix_targets(sparse(np.tile(np.arange(C), (N, 1)), whole, C), truth, 0.35, C)
    np.testing.assert_allclose(dense(made, C), mix_dense(np.eye(C)[truth], whole, 0.35), atol=1e-6)


def test_at_a_share_of_one_the_targets_are_the_labels() -> None:
    truth = np.arange(N) % C
    assert mix_targets(sparse(*answers(), C), truth, 1.0, C).classes.equals(hard(truth, C).classes)


def test_a_table_keeps_its_columns() -> None:
    targets = sparse(*answers(), C)
    columns = [np.zeros(N), np.arange(N), np.zeros(N), np.ones(N, np.float16), np.arange(N), np.ones(N)]
    form = schema.pseudo_labels(C, "0" * 16)
    typed = [pa.array(column, field.type) for column, field in zip(columns, list(form)[:6], strict=True)]
    table = pa.Table.from_arrays([*typed, *targets], schema=form)
    made = mix_table(table, np.arange(N) % C, 0.5, C)
    schema.check(made, form, "made")
    assert made.drop_columns(["classes", "weights"]).equals(table.drop_columns(["classes", "weights"]))
    assert not made["weights"].equals(table["weights"])
