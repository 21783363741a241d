"""Every way to value rows against its definition."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from modelpred.studies.semivalues import enumerate_values
from modelpred.studies.utility import game_of
from modelpred.studies.valuation_methods import (
    OURS,
    confidence,
    evidence,
    held_out_confidence,
    knn_shapley,
    values_by_method,
)
from modelpred.targets import points_of


@pytest.mark.parametrize("neighbours", [1, 3, 5, 12])
def test_knn_shapley_is_the_enumerated_value_of_its_utility(neighbours):
    draws = np.random.default_rng(neighbours)
    points = points_of(draws.normal(size=(9, 2)), draws.integers(0, 3, size=9), 3)
    test = points_of(draws.normal(size=(7, 2)), draws.integers(0, 3, size=7), 3)
    distances = np.linalg.norm(
        test.features.numpy()[:, None] - points.features.numpy()[None], axis=2
    )

    def utility(weights):
        worths = []
        for row in weights.bool().numpy():
            shares = []
            for distance, label in zip(distances, test.labels, strict=True):
                nearest = [point for point in np.argsort(distance) if row[point]][:neighbours]
                agree = sum(int(points.labels[point] == label) for point in nearest)
                shares.append(agree / neighbours)
            worths.append(np.mean(shares))
        return torch.tensor(worths, dtype=torch.float64)

    exact = enumerate_values(utility, points=9).values
    assert knn_shapley(points, test, neighbours=neighbours) == pytest.approx(exact, abs=1e-12)


def test_the_worths_of_a_study(context):
    found = values_by_method(context, permutations=20, generator=np.random.default_rng(0))
    rivals = {"knn_shapley"} if not context.model.regression else set()
    rivals |= {"influence", "newton_step", "self_confidence", "out_of_fold", "random"}
    assert set(found) == {*OURS, *rivals}
    for worth in found.values():
        assert np.isfinite(worth.values).all()
        assert len(worth.values) == context.pool
        assert worth.seconds >= 0
    full = context.truth(torch.ones(1, context.pool))
    scores = context.model.scores(full, context.points.features)
    if context.model.regression:
        sure = -context.model.margins(scores, context.points.labels).abs()
    elif context.model.name == "softmax":
        own = torch.nn.functional.one_hot(context.points.labels, 3).bool()
        others = scores[0].masked_fill(own, -torch.inf).amax(dim=1)
        sure = (scores[0][own] - others)[None]
    else:
        sure = context.model.margins(scores, context.points.labels)
    assert found["self_confidence"].values == pytest.approx(sure[0].numpy(), abs=1e-9)
    influence = game_of(context.refits["influence"], context)
    ones = torch.ones(2, context.pool)
    ones[1, 4] = 0
    both = influence(ones)
    assert found["influence"].values[4] == pytest.approx(float(both[0] - both[1]), abs=1e-9)


def test_held_out_confidence_is_that_of_models_without_the_row(context):
    seen = []

    class Watched:
        name = "watched"

        def __call__(self, weights):
            seen.append(weights.clone())
            return context.truth(weights)

    values = held_out_confidence(Watched(), context, generator=np.random.default_rng(0), subsets=60)
    (members,) = seen
    assert set(members.sum(dim=1).tolist()) == {3, 4, 5, 6}
    point = 2
    said = []
    for member in members[members[:, point] == 0]:
        parameters = context.model.with_prior(
            context.truth(member[None]), member[None].double(), context.points
        )
        scores = context.model.scores(parameters, context.points.features)
        said.append(evidence(context.model, scores, context.points.labels)[0, point].numpy())
    mean, label = np.mean(said, axis=0), context.points.labels[point]
    expected = -np.sqrt(mean[0]) if context.model.regression else mean[0]
    if len(mean) > 1:
        expected = np.log(mean[label] / np.delete(mean, label).max())
    assert values[point] == pytest.approx(float(expected), abs=1e-5)


def test_evidence_is_probabilities_margins_or_squared_residuals(context):
    full = context.truth(torch.ones(2, context.pool))
    scores = context.model.scores(full, context.points.features)
    labels = context.points.labels
    found = evidence(context.model, scores, labels)
    if context.model.regression:
        assert found[..., 0].equal((scores[..., 0] - labels).square())
    elif context.model.name == "svm":
        assert found[..., 0].equal(context.model.margins(scores, labels))
    else:
        assert found.sum(dim=2).numpy() == pytest.approx(1)
        own = found[:, torch.arange(context.pool), labels]
        assert (-own.log()).numpy() == pytest.approx(context.model.losses(scores, labels).numpy())


def test_confidence_of_an_impossible_label_is_finite():
    sure = confidence(torch.tensor([[0.0, 1.0], [0.25, 0.75]]).double(), torch.tensor([0, 1]))
    assert np.isfinite(sure).all()
    assert sure[1] == pytest.approx(np.log(3))


def test_out_of_fold_confidence_is_of_exact_models_that_never_saw_the_row(exact):
    found = values_by_method(exact, permutations=2, generator=np.random.default_rng(5))
    fold = np.random.default_rng(5).spawn(5)[4].permutation(exact.pool) % 10
    for row in (0, 7):
        weights = torch.from_numpy(fold != fold[row]).double()[None]
        scores = exact.model.scores(exact.truth(weights), exact.points.features)
        expected = exact.model.margins(scores, exact.points.labels)[0, row]
        assert found["out_of_fold"].values[row] == pytest.approx(float(expected), abs=1e-6)


def test_a_mislabelled_row_is_worth_little(exact):
    """The surest row of the pool, with its label turned."""
    full = exact.truth(torch.ones(1, exact.pool))
    scores = exact.model.scores(full, exact.points.features)
    surest = int(exact.model.margins(scores, exact.points.labels)[0].argmax())
    labels = exact.points.labels.clone()
    labels[surest] = 1 - labels[surest]
    points = points_of(exact.points.features, labels, 2)
    truth = type(exact.truth)(exact.model, points)
    context = replace(exact, points=points, truth=truth, refits={"predictor": truth})
    found = values_by_method(context, permutations=100, generator=np.random.default_rng(0))
    for name in ("shapley", "held_out_confidence", "self_confidence", "leave_one_out"):
        assert found[name].values.argsort().argsort()[surest] < 3, name
