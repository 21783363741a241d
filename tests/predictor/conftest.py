"""Small banks of trained targets, one a family, made once for the session."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from modelpred.predictor import Predictor, PredictorConfig, fit_predictor
from modelpred.subsets import SubsetsConfig, draw_subsets
from modelpred.targets import Points, TargetModel, points_of, target_model, train_targets
from tests.fixtures import made_once

POINTS, FEATURES = 40, 4
FAMILIES = ("logistic", "softmax", "svm", "ridge")


@dataclass(frozen=True)
class Case:
    """A family on a small pool, its trained subsets, and a predictor fitted to some of them."""

    model: TargetModel
    points: Points
    fit: tuple[Tensor, Tensor]
    held_out: tuple[Tensor, Tensor]
    predictor: Predictor


def make_points(family: str, count: int = POINTS, seed: int = 0) -> Points:
    """Overlapping classes (three for softmax), or a noisy plane for ridge."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, FEATURES, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, generator=generator, dtype=torch.float64)
    plane = features @ torch.linspace(-1, 1, FEATURES, dtype=torch.float64) + noise
    if family == "ridge":
        return points_of(features, plane + 3, 0)
    edges = torch.tensor([-0.5, 0.5] if family == "softmax" else [0.0], dtype=torch.float64)
    return points_of(features, torch.bucketize(plane, edges), len(edges) + 1)


def with_two_again(points: Points) -> Points:
    """The pool, longer by its first two points."""
    return Points(
        torch.cat([points.features, points.features[:2]]),
        torch.cat([points.labels, points.labels[:2]]),
        points.classes,
    )


def make_case(family: str, config: PredictorConfig | None = None) -> Case:
    """The case of a family: 400 uniform and 100 bootstrap subsets to fit, 120 held out."""
    model, points = target_model(family), make_points(family)
    drawn = draw_subsets(
        SubsetsConfig(
            fit={"uniform": 400, "bootstrap": 100},
            validation={"uniform": 60},
            test={"uniform": 60, "deletion": 60},
        ),
        points=POINTS,
    )
    weights = drawn.weights.to(torch.float64)
    trained = train_targets(
        model, points.features, points.labels, weights, tolerance=1e-9, classes=points.classes
    )
    usable = trained.converged & ~trained.degenerate

    def role(name: str) -> tuple[Tensor, Tensor]:
        rows = torch.tensor([role == name for role in drawn.roles]) & usable
        return weights[rows], trained.parameters[rows]

    config = config or PredictorConfig(epochs=8, width=32, step_width=16, steps=3)
    predictor = fit_predictor(config, model, points, *role("fit"), validation=role("validation"))
    return Case(model, points, role("fit"), role("test"), predictor)


@pytest.fixture(scope="session", params=FAMILIES)
def case(request: pytest.FixtureRequest) -> Case:
    """Every convex family in turn."""
    return make_case(request.param)


@pytest.fixture(scope="session", params=[name for name in FAMILIES if name != "ridge"])
def learned(request: pytest.FixtureRequest) -> Case:
    """Every convex family whose answers are learned; those of ridge are exact."""
    return make_case(request.param)


logistic = made_once(make_case, "logistic")
