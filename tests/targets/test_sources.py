"""Kernels: their sources are part of a shard's fingerprint, and no pool makes them fail."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.targets import target_model, train_targets
from modelpred.targets.compiled import kernels

SOURCES = sorted(path.name for path in Path(kernels.__file__).parent.glob("*.[ch]"))


def digest_in(folder):
    """What a copy of the package says of the sources beside it."""
    spec = importlib.util.spec_from_file_location("copied_kernels", folder / "kernels.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.source_digest()


@pytest.mark.parametrize("name", SOURCES)
def test_an_edited_source_changes_what_shards_are_found_by(name, tmp_path):
    for path in Path(kernels.__file__).parent.glob("*.[chp]*"):
        if path.suffix in (".c", ".h", ".py"):
            shutil.copy(path, tmp_path)
    before = digest_in(tmp_path)
    assert before == kernels.source_digest()
    with (tmp_path / name).open("a") as file:
        file.write("/* edited */\n")
    assert digest_in(tmp_path) != before


@given(
    family=st.sampled_from(["logistic", "softmax", "svm", "ridge"]),
    power=st.sampled_from([-12, -6, 0, 6, 12]),
    seed=st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_a_column_of_zeros_has_a_coefficient_of_zero(family, power, seed):
    draws = np.random.default_rng(seed)
    features = draws.normal(size=(24, 3))
    features[:, 1] = 0.0
    labels = features[:, 0] if family == "ridge" else draws.permutation(np.arange(24) % 2)
    weights = draws.integers(0, 3, size=(6, 24))
    model = target_model(family, C=10.0**power)
    trained = train_targets(model, features, labels, weights)
    assert np.isfinite(trained.parameters).all()
    outputs = 2 if family == "softmax" else 1
    coefficients = trained.parameters.reshape(6, outputs, 4)[trained.converged]
    # The penalty alone acts on it. Softmax is trained in turned coordinates: its promise is the tolerance.
    size = np.linalg.norm(coefficients.reshape(len(coefficients), -1), axis=1)[:, None]
    allowed = 1e-6 * size if family == "softmax" else 0 * size
    assert (np.abs(coefficients[:, :, 1]) <= allowed).all()
