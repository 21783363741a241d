"""Whatever the predictor trains itself is trained to the tolerance of its targets."""

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.predictor import PredictorConfig, fit_predictor, read_predictor, write_predictor
from modelpred.predictor import anchors as anchors_module
from modelpred.predictor import predictor as predictor_module
from modelpred.targets import points_of, target_model, train_targets


@settings(max_examples=25, deadline=None)
@given(
    tolerance=st.floats(-10, -3).map(lambda exponent: 10.0**exponent),
    family=st.sampled_from(["logistic", "ridge", "svm"]),
    seed=st.integers(0, 1000),
)
def test_the_tolerance_arrives_at_every_training(tolerance, family, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(12, 2, generator=generator, dtype=torch.float64)
    classes = 0 if family == "ridge" else 2
    labels = features[:, 0] if family == "ridge" else torch.arange(12) % 2
    points, model = points_of(features, labels, classes), target_model(family)
    weights = torch.ones(12, 12) - torch.eye(12)
    asked: list[float] = []

    def recorded(*args, **options):
        asked.append(options["tolerance"])
        return train_targets(*args, **options)

    trained = train_targets(
        model,
        points.features,
        points.labels,
        weights.double(),
        tolerance=tolerance,
        classes=classes,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anchors_module, "train_targets", recorded)
        patch.setattr(predictor_module, "train_targets", recorded)
        config = PredictorConfig(epochs=1, batch=12, width=8, steps=1)
        found = fit_predictor(
            config, model, points, weights, trained.parameters, tolerance=tolerance
        )
        with tempfile.TemporaryDirectory() as folder:
            write_predictor(found, Path(folder))
            read = read_predictor(Path(folder))
        for predictor in (found, read, read.for_points(points)):
            assert predictor.tolerance == tolerance
            predictor(weights)
    assert asked == [tolerance] * (4 if found.exact else 1)
