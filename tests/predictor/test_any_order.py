"""Nothing that is fitted to a bank depends on the order of its rows."""

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from modelpred.predictor import PredictorConfig, fit_predictor
from modelpred.predictor.step_count import planned_steps
from modelpred.refits import LinearDatamodel, content_order
from modelpred.targets import target_model, train_targets
from tests.predictor.conftest import FAMILIES, make_points

NO_SHRINKING = (Phase.explicit, Phase.generate)  # fits are slow
FEW = {"epochs": 1, "width": 8, "step_width": 4, "batch": 32}


@pytest.fixture(scope="module")
def banks():
    """By family: the pool, and a bank that lists large subsets first, then small ones."""
    found = {}
    for family in (*FAMILIES, "mlp"):
        model = target_model(family, **({"steps": 30} if family == "mlp" else {}))
        points = make_points("logistic" if family == "mlp" else family)
        draws = torch.Generator().manual_seed(3)
        shares = torch.linspace(0.95, 0.2, 90)[:, None]
        weights = (torch.rand(90, len(points.labels), generator=draws) < shares).to(torch.uint8)
        trained = train_targets(
            model, points.features, points.labels, weights, classes=points.classes
        )
        kept = trained.converged
        found[family] = model, points, weights[kept], trained.parameters[kept]
    return found


@given(data=st.data())
@settings(max_examples=10, deadline=None, phases=NO_SHRINKING)
def test_a_permuted_bank_gives_the_same_plan_and_the_same_fit(banks, data):
    family = data.draw(st.sampled_from([*FAMILIES, "mlp"]))
    network = data.draw(st.sampled_from(["anchored", "paper"]))
    optimality = data.draw(st.sampled_from([0.0, 0.1]))
    kind = data.draw(st.sampled_from([torch.uint8, torch.int32, torch.float64]))
    model, points, weights, parameters = banks[family]
    config = PredictorConfig(**FEW, network=network, optimality=optimality)
    watched = len(weights) // 4 if data.draw(st.booleans()) else 0

    def fitted(order, watched_order):
        (seen, unseen), (true, other) = (
            (table[watched:], table[:watched]) for table in (weights.to(kind), parameters)
        )
        validation = (unseen[watched_order], other[watched_order]) if watched else None
        predictor = fit_predictor(
            config, model, points, seen[order], true[order], validation=validation
        )
        steps = planned_steps(predictor.anchors, model, points, seen[order], true[order])
        return steps, predictor.network.state_dict(), predictor.anchors.tensors()

    rows = len(weights) - watched
    seed = data.draw(st.integers(0, 2**32 - 1))
    draws = torch.Generator().manual_seed(seed)
    plain = fitted(torch.arange(rows), torch.arange(watched))
    moved = fitted(torch.randperm(rows, generator=draws), torch.randperm(watched, generator=draws))
    assert plain[0] == moved[0]
    for ours, theirs in zip(plain[1:], moved[1:], strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@given(seed=st.integers(0, 2**32 - 1), noise=st.floats(0.01, 100))
@settings(max_examples=50, deadline=None)
def test_a_permuted_bank_gives_the_same_datamodel(seed, noise):
    draws = torch.Generator().manual_seed(seed)
    rows = int(torch.randint(10, 200, (1,), generator=draws))
    weights = torch.randint(0, 3, (rows, 6), generator=draws)
    slopes = torch.randn(6, 2, generator=draws, dtype=torch.float64)
    errors = noise * torch.randn(rows, 2, generator=draws, dtype=torch.float64)
    parameters = weights.double() @ slopes + errors
    order = torch.randperm(rows, generator=draws)
    ours = LinearDatamodel.fit(weights, parameters)
    theirs = LinearDatamodel.fit(weights[order], parameters[order])
    assert ours.penalty == theirs.penalty
    # Sums over the rows are rounded in another order.
    size = float(parameters.abs().max())
    assert torch.allclose(ours(weights), theirs(weights), rtol=0, atol=1e-9 * size)


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(0, 300))
@settings(max_examples=50, deadline=None)
def test_the_order_of_content_puts_every_permutation_into_one_order(seed, rows):
    draws = torch.Generator().manual_seed(seed)
    weights = torch.randint(0, 2, (rows, 9), generator=draws, dtype=torch.uint8)
    parameters = torch.randint(-1, 2, (rows, 2), generator=draws).double()  # with equal rows, too
    moved = torch.randperm(rows, generator=draws)
    first = content_order(weights, parameters)
    second = content_order(weights[moved].float(), parameters[moved])
    assert sorted(first.tolist()) == list(range(rows))
    assert torch.equal(weights[first], weights[moved][second])
    assert torch.equal(parameters[first], parameters[moved][second])
