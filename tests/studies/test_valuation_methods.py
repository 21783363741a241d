"""Every way to value rows against its definition."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from modelpred.studies import valuation_methods
from modelpred.studies.semivalues import enumerate_values
from modelpred.studies.utility import game_of
from modelpred.studies.valuation_methods import (
    OURS,
    knn_shapley,
    values_by_method,
)
from modelpred.targets import points_of


@pytest.mark.parametrize("neighbours", [1, 3, 5, 12])
def test_knn_shapley_is_the_enumerated_value_of_its_utility(neighbours, monkeypatch):
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
    monkeypatch.setattr(valuation_methods, "DISTANCES", 20)  # two test rows at a time
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
    context = replace(exact, truth=truth, refits={"predictor": truth})
    found = values_by_method(context, permutations=100, generator=np.random.default_rng(0))
    for name in ("shapley", "held_out_confidence", "self_confidence", "leave_one_out"):
        assert found[name].values.argsort().argsort()[surest] < 3, name
