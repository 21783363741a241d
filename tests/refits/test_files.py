"""Rivals that are read give the bits of those that were written."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.errors import InvalidInput
from modelpred.refits import rivals
from modelpred.refits.files import RIVALS_FILE, read_rivals, write_rivals
from modelpred.sealed import seal
from modelpred.targets import points_of, target_model

FAMILIES = {"logistic": 2, "softmax": 3, "svm": 2, "ridge": 0, "mlp": 3}


def drawn(family, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    classes = FAMILIES[family]
    labels = torch.arange(20) % classes if classes else features[:, 0] + 1
    model = target_model(family, **({"hidden": 2, "steps": 5} if family == "mlp" else {}))
    weights = torch.randint(0, 3, (12, 20), generator=generator)
    size = model.parameter_count(3, classes)
    parameters = torch.randn(12, size, generator=generator, dtype=torch.float64)
    return model, points_of(features, labels, classes), weights, parameters


@given(family=st.sampled_from(sorted(FAMILIES)), seed=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_what_is_read_answers_to_the_same_bit(tmp_path_factory, family, seed):
    model, points, weights, parameters = drawn(family, seed)
    path = tmp_path_factory.getbasetemp() / RIVALS_FILE
    written = rivals(model, points, weights, parameters, tolerance=1e-8)
    write_rivals(written, path, trained=seed)
    stored = read_rivals(path, model, points, tolerance=1e-8)
    assert (list(stored.refits), stored.trained) == (list(written), seed)
    for name, refit in stored.refits.items():
        assert torch.equal(refit(weights), written[name](weights)), name


@pytest.mark.parametrize("fault", ["missing", "cut", "other points", "not finite"])
def test_a_file_that_does_not_fit_is_refused_in_one_line(tmp_path, fault):
    model, points, weights, parameters = drawn("logistic", 0)
    path = tmp_path / RIVALS_FILE
    found = rivals(model, points, weights, parameters)
    if fault == "not finite":
        found["linear_datamodel"].intercept[0] = torch.nan
    if fault != "missing":
        write_rivals(found, path, trained=12)
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    if fault == "other points":
        points = points_of(points.features[:-1], points.labels[:-1], 2)
    with pytest.raises(InvalidInput, match="run the predictor stage again") as refused:
        read_rivals(path, model, points)
    assert "\n" not in str(refused.value)


def test_other_numbers_than_those_that_were_sealed_are_refused(tmp_path):
    """They are finite and fit the pool, so that every other check passes."""
    model, points, weights, parameters = drawn("logistic", 0)
    path = tmp_path / RIVALS_FILE
    found = rivals(model, points, weights, parameters)
    write_rivals(found, path, trained=12)
    seal(tmp_path)
    assert read_rivals(path, model, points).trained == 12
    found["linear_datamodel"].intercept[0] += 1
    write_rivals(found, path, trained=12)
    with pytest.raises(InvalidInput, match="its content is not the one that"):
        read_rivals(path, model, points)
