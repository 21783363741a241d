"""Break-even from measured seconds: the closed form, and what each row is made of."""

import time
from dataclasses import replace

import pytest
import torch

from modelpred.predictor import break_even_queries
from modelpred.studies import costs
from modelpred.studies.context import Preparation
from modelpred.studies.costs import Seconds, break_even, seconds_of
from tests.studies.conftest import make_context


class Sleeping:
    """A refit that takes a known time for each call and each query."""

    name = "sleeping"

    def __call__(self, weights):
        """Nothing, late."""
        time.sleep(0.01 + 0.001 * len(weights))
        return torch.zeros(len(weights), 1)


@pytest.mark.parametrize(
    ("preparation", "retraining", "predictor", "queries"),
    [(10.0, 0.75, 0.25, 20), (10.0, 0.1, 0.1, None), (10.0, 0.1, 0.2, None), (0.0, 1.0, 0.5, 0)],
)
def test_preparation_is_paid_back_by_what_each_query_saves(
    preparation, retraining, predictor, queries
):
    found = break_even_queries(preparation=preparation, retraining=retraining, predictor=predictor)
    assert found == queries
    if queries:
        cost = preparation + queries * predictor
        assert cost <= queries * retraining + 1e-9
        assert cost - predictor > (queries - 1) * retraining - 1e-9


def test_a_single_query_and_a_batch():
    found = seconds_of(Sleeping(), torch.ones(20, 3), timings=2)
    # Sleeping is never short, and on a busy machine it may be late.
    assert 0.011 <= found.single < 0.1
    assert 0.0015 <= found.batched < 0.02


def test_rows_are_made_of_what_was_measured(monkeypatch, context):
    measured = {
        "retraining": Seconds(single=0.5, batched=0.125),
        "warm_retraining": Seconds(single=0.25, batched=0.0625),
        context.refits[context.subject].name: Seconds(single=0.0, batched=0.0625),
    }
    monkeypatch.setattr(costs, "seconds_of", lambda refit, *_, **__: measured[refit.name])
    weights = torch.ones(4, context.pool)
    known = replace(context, preparation=Preparation(targets=80, fit_seconds=5.0))
    table = break_even(known, weights, timings=1)
    ways = ["retraining", "warm_retraining", "batched_retraining"]
    assert table["way"].to_list() == ways
    assert table["preparation_seconds"].to_list() == [80 * 0.125 + 5] * 3
    assert table["retraining_microseconds"].to_list() == [5e5, 2.5e5, 1.25e5]
    assert table["predictor_microseconds"].to_list() == [0, 0, 6.25e4]
    assert table["queries"].to_list() == [30, 60, 240]


def test_without_a_preparation_its_columns_are_null():
    context = make_context("ridge")
    table = break_even(context, torch.ones(4, context.pool), timings=1)
    assert table["queries"].null_count() == table["preparation_seconds"].null_count() == 3
    assert table["retraining_microseconds"].min() > 0
