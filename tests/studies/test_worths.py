"""Every way to value rows against its definition."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from modelpred.studies.semivalues import enumerate_values
from modelpred.studies.utility import game_of
from modelpred.studies.worths import OURS, all_worths, knn_shapley
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
    found = all_worths(context, permutations=20, generator=np.random.default_rng(0))
    rivals = {"knn_shapley"} if not context.model.regression else set()
    assert set(found) == {*OURS, *rivals, "influence", "newton_step", "self_confidence", "random"}
    for worth in found.values():
        assert np.isfinite(worth.values).all()
        assert len(worth.values) == context.pool
        assert worth.seconds >= 0
    full = context.truth(torch.ones(1, context.pool))
    margins = context.model.margins(
        context.model.scores(full, context.points.features), context.points.labels
    )
    assert found["self_confidence"].values == pytest.approx(margins[0].numpy())
    influence = game_of(context.refits["influence"], context)
    ones = torch.ones(2, context.pool)
    ones[1, 4] = 0
    both = influence(ones)
    assert found["influence"].values[4] == pytest.approx(float(both[0] - both[1]), abs=1e-9)


def test_held_out_confidence_is_that_of_models_without_the_row(exact):
    seen = []

    class Watched:
        name = "watched"

        def __call__(self, weights):
            seen.append(weights.clone())
            return exact.truth(weights)

    context = replace(exact, refits={"predictor": Watched()})
    found = all_worths(context, permutations=4, generator=np.random.default_rng(0))
    # Four orders' worth of evaluations in one call, the last of that length.
    halves = [part for part in seen if len(part) == 4 * exact.pool][-1].double()
    margins = exact.model.margins(
        exact.model.scores(exact.truth(halves), exact.points.features), exact.points.labels
    )
    for point in range(exact.pool):
        expected = margins[halves[:, point] == 0, point].mean()
        assert found["held_out_confidence"].values[point] == pytest.approx(
            float(expected), abs=1e-6
        )


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
    found = all_worths(context, permutations=100, generator=np.random.default_rng(0))
    for name in ("shapley", "held_out_confidence", "self_confidence", "leave_one_out"):
        assert found[name].values.argsort().argsort()[surest] < 3, name
