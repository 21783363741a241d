"""A Hessian with a pivot of exactly zero sends its own subset another way and leaves the others unharmed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.targets import target_model, train_targets
from modelpred.targets.matrices import inverses

CLASSES = {"logistic": 2, "softmax": 3, "svm": 2, "ridge": 0}
POINTS = 32  # a power of two, as are all entries of these Hessians: elimination is exact


def pool(name, kind, generator):
    table = generator.choice([-1.0, 1.0], size=(POINTS, 5))
    if kind == "duplicate":
        table[:, 3:] = table[:, :1]
    elif kind == "zero":
        table[:, 3:] = 0
    elif kind == "constant":
        table[:, 3:] = 1
    else:
        table = np.hstack([table] * 8)
    labels = generator.integers(0, max(CLASSES[name], 2), size=POINTS)
    labels[: CLASSES[name]] = np.arange(CLASSES[name])
    return table, labels.astype(float) if name == "ridge" else labels


@pytest.mark.usefixtures("trained_by")
@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(list(CLASSES)),
    intercept=st.sampled_from(["free", "penalised", "none"]),
    kind=st.sampled_from(["duplicate", "zero", "constant", "wide"]),
    power=st.integers(24, 90),
    seed=st.integers(0, 10**6),
)
def test_a_subset_whose_penalty_vanishes_harms_no_other(name, intercept, kind, power, seed):
    generator = np.random.default_rng(seed)
    table, labels = pool(name, kind, generator)
    usual = generator.integers(0, 3, size=(6, POINTS)).astype(float)
    usual[:, :3] = 1
    odd = usual.copy()
    odd[[1, 4]] = 2.0**power  # beside which a penalty of 1 is lost, even in float64
    model = target_model(name, C=1.0, intercept=intercept)
    alone = train_targets(model, table, labels, usual)
    beside = train_targets(model, table, labels, odd)
    assert np.isfinite(beside.parameters).all()
    assert np.isfinite(beside.objective).all()
    rest = [0, 2, 3, 5]
    assert alone.converged.all()
    assert beside.converged[rest].all()
    moved = np.linalg.norm(beside.parameters[rest] - alone.parameters[rest])
    assert moved <= 1e-9 * (1 + np.linalg.norm(alone.parameters[rest]))


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 40),
    rows=st.integers(1, 6),
    kind=st.sampled_from(["zero", "duplicate", "nothing", "negative"]),
    seed=st.integers(0, 10**6),
)
def test_inverses_are_nan_for_a_zero_pivot_and_right_beside_it(size, rows, kind, seed):
    generator = torch.Generator().manual_seed(seed)
    half = torch.randn(rows, size, size + 4, generator=generator, dtype=torch.float64)
    good = half @ half.mT / size + torch.eye(size, dtype=torch.float64)
    at = int(torch.randint(size, (), generator=generator))
    bad = torch.eye(size, dtype=torch.float64)
    if kind == "zero":
        bad[at] = 0
    elif kind == "nothing":
        bad[:] = 0
    elif kind == "negative" or size == 1:
        bad[at, at] = -1
    else:
        bad[at, at - 1] = bad[at - 1, at] = 1  # two equal columns: the second pivot is 1 - 1
    found = inverses(torch.cat([good, bad[None], good]))
    assert bool(found[rows].isnan().any())
    for healthy in (found[:rows], found[rows + 1 :]):
        torch.testing.assert_close(healthy, torch.linalg.inv(good), rtol=1e-9, atol=1e-9)
