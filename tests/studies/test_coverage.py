"""Coverage of intervals where the truth is known: labels are drawn from a model."""

import numpy as np
import pytest
import torch

from modelpred.refits import Retraining
from modelpred.studies.coverage import KnownModel, simulated_coverage
from modelpred.targets import target_model


def known(strength, *, points=200):
    draws = np.random.default_rng(1)
    return KnownModel(
        target_model("logistic", C=strength),
        torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64),
        torch.tensor(draws.normal(size=(points, 2))),
        torch.tensor(draws.normal(size=(30, 2))),
        2,
    )


def covered(strength, *, tables=40, refits_of=None):
    return simulated_coverage(
        known(strength),
        tables=tables,
        resamples=100,
        generator=np.random.default_rng(2),
        refits_of=refits_of,
    )


def test_labels_are_drawn_as_often_as_the_model_says():
    truth = known(1.0, points=5)
    draws = np.random.default_rng(0)
    shares = torch.stack([truth.draw(draws).labels for _ in range(4000)]).double().mean(0)
    # Standard error at most sqrt(0.25 / 4000) = 0.008; four of them.
    assert shares.numpy() == pytest.approx(
        truth.probabilities(truth.features)[:, 1].numpy(), abs=0.032
    )


def test_intervals_hold_a_known_truth_as_often_as_they_say():
    """A weak penalty hardly moves the models, so 90% is 90% up to the band of 40 tables."""
    found = covered(100.0)["retraining"]
    for share in (found.probabilities, found.parameters):
        # Percentile intervals of 200 rows are short by about a point.
        assert share.low - 0.02 <= 0.9 <= share.high + 0.02
        assert share.high - share.low < 0.15
        assert share.n == 40


def test_intervals_without_width_hold_the_truth_only_where_they_are_it():
    """The full-data model of a table for every resample, and the true model itself."""

    def full_model(model, table):
        full = Retraining(model, table)(torch.ones(1, len(table.labels)))
        return lambda weights: full.repeat(len(weights), 1)

    def truth(_model, _table):
        return lambda weights: known(1.0).parameters.repeat(len(weights), 1)

    found = covered(1.0, tables=2, refits_of={"full_model": full_model, "truth": truth})
    assert found["full_model"].probabilities.mean == found["full_model"].parameters.mean == 0
    assert found["truth"].parameters.mean == 1


def test_refits_are_asked_on_the_same_tables():
    found = covered(1.0, tables=3, refits_of={"one": Retraining, "other": Retraining})
    assert found["one"] == found["other"] == covered(1.0, tables=3)["retraining"]


def test_a_strong_penalty_costs_coverage():
    """Intervals are then around shrunken models, and say 90% all the same."""
    assert covered(0.01, tables=10)["retraining"].parameters.high < 0.8


def test_one_table_has_a_share_and_no_band():
    found = covered(1.0, tables=1)["retraining"].probabilities
    assert 0 <= found.mean <= 1
    assert (found.low, found.high) == (-np.inf, np.inf)
