"""Whatever is given as weights is answered as the same counts in float64 are, or refused in one line."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.errors import InvalidInput
from modelpred.predictor import PredictorConfig, fit_predictor
from modelpred.predictor.request_handler import RequestHandler
from modelpred.refits import rivals
from modelpred.targets.weights import weights_of
from tests.predictor.conftest import POINTS

SMALL = PredictorConfig(epochs=1, width=8, step_width=4, steps=1)

KINDS = (
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint16, torch.uint32, torch.uint64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
)
WRONG = (
    *(-1.0, -1e-300, float("nan"), float("inf"), -float("inf")),
    *(1e7, 1e39, 1e155, 1e308),
)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_every_kind_of_counts_is_answered_alike(logistic, data):
    kind = data.draw(st.sampled_from(KINDS))
    draws = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32 - 1)))
    counts = torch.randint(
        0, 2 if kind == torch.bool else 4, (data.draw(st.integers(0, 5)), POINTS), generator=draws
    )
    expected = logistic.predictor.predict(counts.double())
    given_as = counts.to(kind)
    layout = data.draw(st.sampled_from(["plain", "columns first", "strided", "grad"]))
    if layout == "columns first":
        given_as = given_as.T.contiguous().T
    elif layout == "strided":
        given_as = given_as.repeat_interleave(2, 1)[:, ::2]
    elif layout == "grad" and given_as.is_floating_point():
        given_as.requires_grad_()
    assert torch.equal(logistic.predictor.predict(given_as), expected)
    assert torch.equal(RequestHandler(logistic.predictor).parameters(given_as), expected)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_values_that_are_no_counts_are_refused_in_one_line(logistic, data):
    weights = torch.ones(data.draw(st.integers(1, 3)), POINTS, dtype=torch.float64)
    row = data.draw(st.integers(0, len(weights) - 1))
    wrong = data.draw(st.sampled_from(WRONG))
    weights[row, data.draw(st.integers(0, POINTS - 1))] = wrong
    asked = {"predictor": logistic.predictor, "certificate": logistic.predictor.certificate}
    if not 0 <= wrong < float("inf"):
        asked |= rivals(logistic.model, logistic.points, *logistic.fit)
    for name, refit in asked.items():
        with pytest.raises(InvalidInput) as refused:
            refit(weights)
        assert "\n" not in str(refused.value), name


@pytest.mark.parametrize("total", [1e-320, 1e-50, 1e-20, 1e-4, 0.4])
def test_subsets_of_nearly_nothing_are_refused(logistic, total):
    weights = torch.full((1, POINTS), total / POINTS, dtype=torch.float64)
    with pytest.raises(InvalidInput, match="in sum 0 or at least"):
        logistic.predictor.predict(weights)


NO_TABLES = {
    "a number": torch.tensor(3.0),
    "one row": torch.ones(POINTS),
    "three axes": torch.ones(1, 1, POINTS),
    "too wide": torch.ones(2, POINTS + 1),
    "complex": torch.ones(2, POINTS, dtype=torch.complex64),
    "sparse": torch.ones(2, POINTS).to_sparse(),
    "without data": torch.ones(2, POINTS, device="meta"),
    "text": np.full((2, POINTS), "1"),
    "ragged": [[1, 2], [3]],
    "text in lists": [["a"]],
    "none": None,
    "a mapping": {},
    "a large number": [[10**400] * POINTS],
}


@pytest.mark.parametrize("name", NO_TABLES)
def test_what_is_no_table_of_counts_is_refused_in_one_line(logistic, name):
    asked = NO_TABLES[name]
    with pytest.raises(InvalidInput) as refused:
        weights_of(asked, points=POINTS)  # what every refit and all training asks
    assert "\n" not in str(refused.value)
    if isinstance(asked, torch.Tensor):
        for question in (logistic.predictor.predict, RequestHandler(logistic.predictor).parameters):
            with pytest.raises(InvalidInput):
                question(asked)
        with pytest.raises(InvalidInput):
            fit_predictor(SMALL, logistic.model, logistic.points, asked, logistic.fit[1][:2])


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_validation_subsets_without_an_optimum_are_as_none(logistic, data):
    weights, true = (table[:40] for table in logistic.fit)
    rows = data.draw(st.integers(0, 4))
    lone = torch.zeros(rows, POINTS)
    if rows:
        label = data.draw(st.sampled_from([0, 1]))
        lone[:, (logistic.points.labels == label).nonzero()[0]] = data.draw(st.integers(0, 3))
    fits = [
        fit_predictor(SMALL, logistic.model, logistic.points, weights, true, validation=watched)
        for watched in (None, (lone, torch.zeros(rows, true.shape[1], dtype=torch.float64)))
    ]
    errors = [fit.history[0]["validation_error"] for fit in fits]
    assert errors[0] == errors[1]
