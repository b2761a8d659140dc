"""Heads against known answers: scikit-learn, brute force, sums by hand."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from engine.embed.statistics import Moments
from engine.probe import logistic
from engine.probe.choose import GRID, ONE_EACH, ONE_EACH_TOTAL, HeldOut, TrainingRows, choose_penalty, stratified_folds
from engine.probe.heads import FLOOR, LinearHead, NeighbourHead, read_head, unscaled
from engine.probe.logistic import fit_logistic
from engine.probe.prototypes import prototypes

CLASSES, DIM = 4, 12


def blobs(images: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features float32 (N, D) and classes int64 (N,) of overlapping blobs; every class has images."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(CLASSES, DIM))
    labels = np.arange(images) % CLASSES
    z = centres[labels] + 1.5 * rng.normal(size=(images, DIM))
    return torch.tensor(z, dtype=torch.float32), torch.from_numpy(labels)


def one_hot(labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels, CLASSES).float()


@pytest.mark.parametrize("inverse_penalty", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_a_probe_is_scikit_learns(inverse_penalty: float, is_weighted: bool) -> None:
    z, labels = blobs(200)
    weights = torch.linspace(0.2, 3, 200) if is_weighted else torch.ones(200)
    found = fit_logistic(z, one_hot(labels), weights, inverse_penalty)
    wanted = LogisticRegression(C=inverse_penalty, tol=1e-10, max_iter=10_000)
    wanted.fit(z.double().numpy(), labels.numpy(), sample_weight=weights.numpy())
    np.testing.assert_allclose(found.weight, wanted.coef_, atol=1e-4)
    np.testing.assert_allclose(found.bias - found.bias.mean(), wanted.intercept_ - wanted.intercept_.mean(), atol=1e-4)
    odds = torch.softmax(z.double() @ found.weight.T + found.bias, dim=1)
    np.testing.assert_allclose(odds, wanted.predict_proba(z.double().numpy()), atol=1e-4)


def test_fewer_images_than_features_are_scikit_learns_too() -> None:
    rng = np.random.default_rng(2)
    z, labels = torch.tensor(rng.normal(size=(12, 40)), dtype=torch.float32), torch.arange(12) % CLASSES
    z[11] = z[7]  # the span is smaller still
    found = fit_logistic(z, one_hot(labels), torch.ones(12), 3.0)
    again = fit_logistic(z, one_hot(labels), torch.ones(12), 3.0, found)
    wanted = LogisticRegression(C=3.0, tol=1e-10, max_iter=10_000).fit(z.double().numpy(), labels.numpy())
    np.testing.assert_allclose(found.weight, wanted.coef_, atol=1e-4)
    np.testing.assert_allclose(again.weight, wanted.coef_, atol=1e-4)


def test_of_many_images_it_is_scikit_learns_to_a_rough_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "EXACT_CELLS", 0)
    z, labels = blobs(200)
    found = fit_logistic(z, one_hot(labels), torch.ones(200), 1.0)
    wanted = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(z.double().numpy(), labels.numpy())
    np.testing.assert_allclose(found.weight, wanted.coef_, atol=5e-3)
    odds = torch.softmax(z.double() @ found.weight.T + found.bias, dim=1)
    np.testing.assert_allclose(odds, wanted.predict_proba(z.double().numpy()), atol=2e-3)


def test_a_soft_target_counts_as_its_classes_with_their_weights() -> None:
    z, labels = blobs(60)
    rng = np.random.default_rng(1)
    soft = torch.tensor(rng.dirichlet(np.ones(CLASSES), 60), dtype=torch.float32)
    weights = torch.tensor(rng.uniform(0.5, 2, 60), dtype=torch.float32)
    found = fit_logistic(z, soft, weights, 2.0)
    wanted = LogisticRegression(C=2.0, tol=1e-10, max_iter=10_000).fit(
        z.double().numpy().repeat(CLASSES, axis=0),
        np.tile(np.arange(CLASSES), 60),
        sample_weight=(weights[:, None] * soft).double().numpy().ravel(),
    )
    np.testing.assert_allclose(found.weight, wanted.coef_, atol=1e-4)
    assert len(labels) == 60


def test_where_a_fit_starts_does_not_matter() -> None:
    z, labels = blobs(100)
    far = fit_logistic(z, one_hot(labels), torch.ones(100), 1000.0)
    found = fit_logistic(z, one_hot(labels), torch.ones(100), 0.1, far)
    np.testing.assert_allclose(found.weight, fit_logistic(z, one_hot(labels), torch.ones(100), 0.1).weight, atol=1e-4)


@pytest.mark.parametrize("neighbours", [1, 7, 500])
def test_neighbours_are_those_of_brute_force(neighbours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.probe.heads.BANK_CELLS", 300)  # several chunks
    z, labels = blobs(60)
    queries, _ = blobs(31, seed=5)
    mean, scale = torch.full((DIM,), 0.3), torch.linspace(0.5, 2, DIM)
    bank = torch.nn.functional.normalize((z - mean) / scale, dim=1)
    weights = torch.linspace(0.5, 1, 60)
    head = NeighbourHead(bank, weights[:, None] * one_hot(labels), mean, scale, neighbours, 0.1)
    found = read_head(head.to_bytes()).logits(queries)
    for query, row in zip(queries.double().numpy(), found.numpy(), strict=True):
        scaled = (query - mean.numpy()) / scale.numpy()
        known = (z.double().numpy() - mean.numpy()) / scale.numpy()
        cosine = known @ scaled / np.linalg.norm(known, axis=1) / np.linalg.norm(scaled)
        votes = np.zeros(CLASSES)
        nearest = np.argsort(-cosine)[:neighbours]
        shares = np.exp(cosine[nearest] / 0.1)
        for image, share in zip(nearest, shares / shares.sum(), strict=True):
            votes[labels[image]] += share * float(weights[image])
        np.testing.assert_allclose(row, np.log(np.maximum(votes, FLOOR)), atol=1e-3)


def test_prototypes_are_the_classes_mean_directions() -> None:
    z, labels = blobs(40)
    weight, bias = prototypes(z, one_hot(labels), torch.ones(40), 0.5)
    directions = z.numpy() / np.linalg.norm(z.numpy(), axis=1, keepdims=True)
    for c in range(CLASSES):
        mean = directions[labels.numpy() == c].mean(axis=0)
        np.testing.assert_allclose(weight[c], mean / np.linalg.norm(mean) / 0.5, atol=1e-5)
    assert not bias.any()
    cosine = torch.nn.functional.cosine_similarity(z[:, None], weight[None], dim=2)
    assert torch.equal((z @ weight.T + bias).argmax(1), cosine.argmax(1))


def test_a_head_on_scaled_features_is_one_on_features() -> None:
    x, _ = blobs(20)
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(CLASSES, DIM, generator=generator), torch.randn(CLASSES, generator=generator)
    mean, scale = torch.linspace(-1, 1, DIM), torch.linspace(0.2, 3, DIM)
    scale[2] = torch.inf  # a feature that is the same for all images
    head = unscaled(weight, bias, mean, scale)
    torch.testing.assert_close(head.logits(x), ((x - mean) / scale) @ weight.T + bias, rtol=1e-4, atol=1e-4)
    again = read_head(head.to_bytes())
    assert isinstance(again, LinearHead)
    assert torch.equal(again.weight, head.weight)


def test_the_penalty_is_chosen_where_it_is_not_learned() -> None:
    z, labels = blobs(40)
    rows = TrainingRows(z, one_hot(labels), torch.ones(40), 40)
    fresh = HeldOut(*blobs(400, seed=7))
    chosen = choose_penalty(rows, fresh, folds=5)
    assert chosen.on == "validation"
    losses = {}
    for c in GRID:
        fitted = fit_logistic(z, one_hot(labels), torch.ones(40), c)
        logits = fresh.z.double() @ fitted.weight.T + fitted.bias
        losses[c] = float(torch.nn.functional.cross_entropy(logits, fresh.labels))
    assert min(losses, key=losses.__getitem__) == chosen.C
    assert choose_penalty(rows, None, folds=5).on == "cross-validation"
    single = TrainingRows(z[:4], one_hot(labels)[:4], torch.ones(4), 4)
    assert choose_penalty(single, None, folds=5).C == ONE_EACH
    joined = TrainingRows(z, one_hot(labels), torch.ones(40), 4)
    assert choose_penalty(joined, None, folds=5).C == ONE_EACH_TOTAL / 40


def test_pseudo_labels_are_never_what_a_penalty_is_chosen_on() -> None:
    z, labels = blobs(40)
    wrong = one_hot((labels + 1) % CLASSES)
    rows = TrainingRows(
        torch.cat([z, z]), torch.cat([one_hot(labels), wrong]), torch.cat([torch.ones(40), torch.full((40,), 1e-3)]), 40
    )
    alone = choose_penalty(rows.true, None, folds=4)
    both = choose_penalty(rows, None, folds=4)
    assert both.losses == alone.losses
    assert pytest.approx(alone.C * 40 / 40.04) == both.C
    held = rows.without(np.array([0, 5]))
    assert (len(held.z), held.num_true) == (78, 38)


def test_folds_hold_every_image_once_and_leave_an_image_of_every_class() -> None:
    labels = np.array([0] * 3 + [1] * 20 + [3] * 7)
    folds = list(stratified_folds(labels, 5))
    assert len(folds) == 3
    assert sorted(np.concatenate(folds).tolist()) == list(range(30))
    for fold in folds:
        assert set(np.delete(labels, fold)) == {0, 1, 3}


def test_moments_of_parts_are_those_of_the_whole() -> None:
    values = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float16)
    whole, merged = Moments(), Moments()
    whole.update(values)
    for part in np.array_split(values, 4):
        other = Moments()
        other.update(part)
        merged.merge(other)
    assert merged.count == 50
    np.testing.assert_allclose(merged.total, whole.total)
    np.testing.assert_allclose(merged.squares, whole.squares)
