"""Laws of set functions, and the anchors that they start from."""

import pytest
import torch

from modelpred.predictor import PredictorConfig
from modelpred.predictor.anchors import make_anchors, pool_anchors
from modelpred.predictor.network import PaperNetwork, size_features
from modelpred.targets import Points
from tests.predictor.conftest import make_case

# Sums in single precision come out in another order; relative to parameters of about one.
ROUNDING = {"rtol": 2e-4, "atol": 2e-5}


@pytest.fixture(scope="module", params=["anchored", "paper"])
def fitted(request, logistic):
    if request.param == "anchored":
        return logistic
    return make_case("logistic", PredictorConfig(network="paper", epochs=1))


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
    anchors = make_anchors(case.model, case.points, tolerance=1e-10)
    pooled = pool_anchors(anchors, case.model, case.points)
    weights = anchors.shares[:, None].expand(-1, len(case.points.labels)).contiguous()
    levels = anchors.levels(weights)
    assert levels.tolist() == list(range(len(anchors.shares)))
    torch.testing.assert_close(pooled(weights, levels), anchors.parameters, rtol=0, atol=1e-8)


def test_the_preconditioner_inverts_the_middle_hessian(case):
    anchors = make_anchors(case.model, case.points)
    middle = len(anchors.shares) // 2
    weights = anchors.shares[middle].expand(len(case.points.labels))
    hessian = case.model.hessian(anchors.parameters[middle], weights, case.points)
    vectors = torch.eye(len(hessian), dtype=torch.float64)[:5] @ hessian
    levels = torch.full((5,), middle)
    back = anchors.precondition(vectors, levels) @ hessian
    # H P H = H also where H is singular (equal shifts of softmax intercepts).
    torch.testing.assert_close(back, vectors, rtol=1e-6, atol=1e-6)


def test_size_features_by_hand():
    weights = torch.tensor([[2.0, 1.0, 0.0, 0.0]])
    expected = torch.tensor([[torch.tensor(0.75).log(), 0.75, 4 / 3]])
    torch.testing.assert_close(size_features(weights, 4), expected)


def test_the_published_network_has_the_published_layers():
    shapes = [tuple(p.shape) for p in PaperNetwork(57, 1, 58).parameters()]
    assert shapes == [
        (128, 58), (128, 128), (128, 128),
        (128, 128), (128, 128), (64, 128), (58, 64), (58,),
    ]  # fmt: skip
