"""Confidence of models without the row: parts of the rows, against a loop over models."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.studies.forest import forest_probabilities
from modelpred.studies.held_out import (
    PARTS,
    ROUNDS,
    confidence,
    evidence,
    held_out_confidence,
    held_out_evidence,
    log_probabilities,
    parts_of,
    rounds_of,
)
from modelpred.targets import Points, points_of


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=90),
    rounds=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_every_round_divides_the_rows_into_parts_with_equal_shares_of_each_class(
    labels, rounds, seed
):
    points = points_of(np.zeros((len(labels), 1)), np.array(labels), 4)
    weights = parts_of(points, rounds=rounds, generator=np.random.default_rng(seed))
    parts = min(PARTS, len(labels))
    by_round = weights.reshape(rounds, parts, len(labels)).long()
    assert (by_round.sum(dim=1) == 1).all()
    assert weights.dtype == torch.uint8
    for label in range(4):
        counts = by_round[:, :, points.labels == label].sum(dim=2)
        assert (counts.amax(dim=1) - counts.amin(dim=1) <= 1).all()


def test_large_tables_have_few_rounds():
    fewest, most = ROUNDS
    assert rounds_of(10**6) == rounds_of(20_000) == fewest
    assert rounds_of(10) == rounds_of(300) == most
    assert fewest < rounds_of(10_000) < rounds_of(2000) < most


def test_held_out_confidence_is_that_of_models_without_the_row(context):
    seen = []

    class Watched:
        name = "watched"

        def __call__(self, weights):
            seen.append(weights.clone())
            return context.truth(weights)

    generator = np.random.default_rng(0)
    values = held_out_confidence(Watched(), context, generator=generator, rounds=4)
    (members,) = seen
    assert set(members.sum(dim=1).tolist()) == {3, 4}
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


def test_rows_outside_are_judged_by_all_models(context):
    others = context.test_points
    found = held_out_evidence(
        context.truth, context, generator=np.random.default_rng(1), rounds=2, others=others
    )
    members = parts_of(context.points, rounds=2, generator=np.random.default_rng(1))
    parameters = context.model.with_prior(context.truth(members), members.double(), context.points)
    scores = context.model.scores(parameters, others.features)
    mean = evidence(context.model, scores, others.labels).mean(dim=0)
    assert found.others.numpy() == pytest.approx(mean.numpy(), abs=1e-9)
    assert len(found.own) == context.pool


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


def test_a_mean_margin_counts_as_log_odds():
    margins, labels = torch.tensor([[1.5], [-2.0], [3.0]]).double(), torch.tensor([0, 1, 1])
    logs = log_probabilities(margins, labels)
    own = logs.gather(1, labels[:, None]) - logs.gather(1, 1 - labels[:, None])
    assert own.numpy() == pytest.approx(margins.numpy())


def test_the_trees_of_a_row_are_those_that_are_not_fitted_to_it():
    """A class of one row has probability 0 by the trees without this row."""
    draws = np.random.default_rng(2)
    features = draws.normal(size=(120, 3))
    labels = (features[:, 0] > 0).astype(np.int64)
    labels[7] = 2
    points = points_of(features, labels, 4)
    others = Points(points.features[:5], points.labels[:5], 4)
    own, outside = forest_probabilities(points, seed=1, others=others)
    assert own.shape == (120, 4)
    assert outside.shape == (5, 4)
    assert float(own[7, 2]) == 0
    assert float(own[:, 2].sum()) > 0
    assert own.sum(dim=1).numpy() == pytest.approx(1)
    assert (own[:, 3] == 0).all()
    sure = own.gather(1, points.labels[:, None])[np.arange(120) != 7, 0]
    assert float((sure > 0.5).double().mean()) > 0.9
    again, _ = forest_probabilities(points, seed=1)
    assert again.equal(own)
