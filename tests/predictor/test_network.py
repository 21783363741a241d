"""Laws of set functions, and the anchors that they start from."""

import pytest
import torch

from modelpred.predictor import PredictorConfig
from modelpred.predictor.anchors import LEVELS, fit_size_path
from modelpred.predictor.network import PaperNetwork, _spread, size_features
from modelpred.targets import Points
from tests.predictor.conftest import make_case

# Sums in single precision come out in another order; relative to parameters of about one.
ROUNDING = {"rtol": 1e-5, "atol": 3e-6}


@pytest.fixture(scope="module", params=["anchored", "anchored-softmax", "paper"])
def fitted(request, logistic):
    if request.param == "anchored":
        return logistic
    if request.param == "anchored-softmax":
        return make_case("softmax")
    return make_case("logistic", PredictorConfig(network=request.param, epochs=1))


def _moved(points: Points, rows: torch.Tensor) -> Points:
    return Points(points.features[rows], points.labels[rows], points.classes)


def test_order_of_points_does_not_matter(fitted):
    weights, _ = fitted.held_out
    order = torch.randperm(weights.shape[1], generator=torch.Generator().manual_seed(0))
    moved = fitted.predictor.for_points(_moved(fitted.points, order))
    torch.testing.assert_close(moved(weights[:, order]), fitted.predictor(weights), **ROUNDING)


def test_weight_two_is_the_row_twice(fitted):
    weights, _ = fitted.held_out
    rows = torch.cat([torch.arange(weights.shape[1]), torch.arange(weights.shape[1])])
    doubled = fitted.predictor.for_points(_moved(fitted.points, rows))
    counts = 1 + torch.arange(weights.shape[1]) % 2
    together = fitted.predictor(weights * counts)
    first = weights * (counts >= 1)
    second = weights * (counts >= 2)
    torch.testing.assert_close(doubled(torch.cat([first, second], 1)), together, **ROUNDING)


def test_points_of_weight_zero_do_not_matter(fitted):
    weights, _ = fitted.held_out
    rows = torch.arange(weights.shape[1] + 7) % weights.shape[1]
    padded = fitted.predictor.for_points(_moved(fitted.points, rows))
    nothing = torch.zeros(len(weights), 7, dtype=weights.dtype)
    torch.testing.assert_close(
        padded(torch.cat([weights, nothing], 1)), fitted.predictor(weights), **ROUNDING
    )


def test_batch_does_not_matter(fitted):
    weights, _ = fitted.held_out
    alone = torch.cat([fitted.predictor(row[None]) for row in weights[:20]])
    torch.testing.assert_close(alone, fitted.predictor(weights)[:20], **ROUNDING)


def test_the_anchor_of_a_path_level_is_the_path(case):
    path = fit_size_path(case.model, case.points, tolerance=1e-10)
    bound = path.bind(case.model, case.points, torch.float64)
    weights = path.shares[:, None].expand(-1, len(case.points.labels)).contiguous()
    assert bound.levels(weights).tolist() == list(range(len(path.shares)))
    torch.testing.assert_close(bound(weights), path.parameters, rtol=0, atol=1e-8)


def test_the_preconditioner_inverts_the_middle_hessian(case):
    path = fit_size_path(case.model, case.points)
    middle = LEVELS // 2
    weights = path.shares[middle].expand(len(case.points.labels))
    hessian = case.model.hessian(path.parameters[middle], weights, case.points)
    vectors = torch.eye(len(hessian), dtype=torch.float64)[:5] @ hessian
    bound = path.bind(case.model, case.points, torch.float64)
    back = bound.preconditioner(weights.expand(5, -1))(vectors) @ hessian
    # H P H = H also where H is singular (equal shifts of softmax intercepts).
    torch.testing.assert_close(back, vectors, rtol=1e-6, atol=1e-6)


def test_size_features_by_hand():
    weights = torch.tensor([[2.0, 1.0, 0.0, 0.0], [3.0, 3.0, 0.0, 0.0]])
    # The second subset is larger than the pool and passes for all of it.
    expected = torch.tensor([[torch.tensor(0.75).log(), 0.75, 4 / 3], [0.0, 1.0, 1.0]])
    torch.testing.assert_close(size_features(weights, 4), expected)


def test_a_pool_may_grow_to_twice_its_size(case):
    """The path knows the optimum of every point twice, and no anchor is thrown far by new points."""
    path = fit_size_path(case.model, case.points, tolerance=1e-10)
    bound = path.bind(case.model, case.points, torch.float64)
    twice = torch.full((1, len(case.points.labels)), 2.0, dtype=torch.float64)
    torch.testing.assert_close(bound(twice), path.parameters[-1:], rtol=0, atol=1e-8)
    away = Points(50 * case.points.features, case.points.labels, case.points.classes)
    far = path.bind(case.model, away, torch.float64)(twice)
    longest = path.parameters.norm(dim=1).max()
    assert float((far - path.parameters[-1]).norm()) <= float(longest) * (1 + 1e-9)


def test_a_column_that_varies_by_rounding_alone_has_no_scale():
    """Divided by it, the rounding would reach the network in the size of real inputs."""
    draws = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    scale = _spread(draws * torch.tensor([2.0, 1e-6, 1e-18]))
    torch.testing.assert_close(scale[:2], (draws * torch.tensor([2.0, 1e-6, 0.0])).std(0)[:2])
    assert scale[2] == 1


def test_the_published_network_has_the_published_layers():
    shapes = [tuple(p.shape) for p in PaperNetwork(57, 1, 58).parameters()]
    assert shapes == [
        (128, 58), (128, 128), (128, 128),
        (128, 128), (128, 128), (64, 128), (58, 64), (58,),
    ]  # fmt: skip
