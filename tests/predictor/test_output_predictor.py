"""A predictor of outputs: what is written is read to the bit, and what cannot be used is named."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from modelpred.errors import InvalidInput
from modelpred.predictor.output_predictor import (
    DESCRIPTION_FILE,
    TENSORS_FILE,
    fit_outputs,
    read_outputs,
    write_outputs,
)
from modelpred.targets import target_model
from modelpred.targets.known_outputs import KnownOutputs
from tests.predictor.conftest import make_points

FAMILY = target_model("mlp", hidden=2, steps=5)


def fitted_to(subsets, rows):
    """A predictor of outputs that are linear in the weights, and the weights that it was fitted to."""
    points = make_points("logistic", rows)
    model = KnownOutputs.of(FAMILY, points)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randint(0, 2, (subsets, rows), generator=generator).double()
    slopes = torch.randn(rows, model.parameter_count(4, 2), generator=generator).double()
    full = FAMILY.prior(torch.zeros(1, 2, dtype=torch.float64), 4)[0]
    ids = tuple(map(str, range(rows)))
    return fit_outputs(model, points, weights, weights @ slopes, full=full, row_ids=ids), weights


@pytest.fixture(scope="module")
def fitted():
    """A predictor from 30 subsets of 12 points."""
    return fitted_to(30, 12)[0]


def test_few_subsets_of_many_rows_are_kept_as_factors(tmp_path):
    # An effect of each row on each output would take 8 * 400 * 800 bytes; 10 subsets take a fortieth.
    found, weights = fitted_to(10, 400)
    write_outputs(found, tmp_path)
    assert (tmp_path / TENSORS_FILE).stat().st_size < 8 * 400 * found(weights).shape[1] / 5
    assert torch.equal(read_outputs(tmp_path, FAMILY)(weights), found(weights))


@pytest.fixture
def folder(fitted, tmp_path):
    write_outputs(fitted, tmp_path)
    return tmp_path


def test_round_trip(fitted, folder):
    back = read_outputs(folder, FAMILY)
    weights = torch.randint(0, 3, (7, 12), generator=torch.Generator().manual_seed(1))
    assert torch.equal(back(weights), fitted(weights))
    assert (back.row_ids, back.seconds) == (fitted.row_ids, fitted.seconds)
    assert torch.equal(back.points.features, fitted.points.features)
    assert torch.equal(back.points.labels, fitted.points.labels)
    assert torch.equal(back.model.known, fitted.model.known)
    assert (back.scores.gamma, back.scores.penalty) == (fitted.scores.gamma, fitted.scores.penalty)


@pytest.mark.parametrize(
    "other", [target_model("mlp", hidden=3, steps=5), target_model("logistic")]
)
def test_outputs_of_another_family_or_other_settings_are_refused(folder, other):
    with pytest.raises(InvalidInput, match="is of mlp with other settings or other code; run the"):
        read_outputs(folder, other)


@given(
    name=st.sampled_from(
        ["directions", "coefficients", "weights", "scores", "known", "features", "labels"]
    ),
    damage=st.sampled_from(["missing", "shorter", "not finite", "flat"]),
)
def test_tensors_that_do_not_fit_are_named_in_one_line(fitted, tmp_path_factory, name, damage):
    folder = tmp_path_factory.getbasetemp() / "outputs"
    folder.mkdir(exist_ok=True)
    write_outputs(fitted, folder)
    path = folder / TENSORS_FILE
    tensors = load_file(path)
    if damage == "missing":
        del tensors[name]
    elif damage == "shorter":
        tensors[name] = tensors[name][:-1].clone()
    elif damage == "flat":
        tensors[name] = tensors[name].flatten()[:1].clone()
    elif tensors[name].is_floating_point():
        tensors[name] = tensors[name] * torch.nan
    else:
        return
    save_file(tensors, path)
    with pytest.raises(InvalidInput, match=r"outputs\.safetensors cannot be used") as refused:
        read_outputs(folder, FAMILY)
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith("run the predictor stage again")


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"{}" * 20])
@pytest.mark.parametrize("name", [TENSORS_FILE, DESCRIPTION_FILE])
def test_files_of_other_formats_are_refused(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=f"{name} cannot be used"):
        read_outputs(folder, FAMILY)
    (folder / name).unlink()
    with pytest.raises(InvalidInput, match=f"{name} is missing"):
        read_outputs(folder, FAMILY)


def test_numbers_of_other_classes_are_refused(folder):
    path = folder / DESCRIPTION_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"classes": 3}))
    with pytest.raises(InvalidInput, match=r"coefficients has shape \[\d+, \d+\], expected"):
        read_outputs(folder, FAMILY)
