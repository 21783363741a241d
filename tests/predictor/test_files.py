"""Predictor files: a round trip to the bit, and damage that is named."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from modelpred.errors import InvalidInput
from modelpred.predictor import read_predictor, write_predictor


@pytest.fixture
def folder(case, tmp_path):
    write_predictor(case.predictor, tmp_path)
    return tmp_path


def test_round_trip(case, folder):
    back = read_predictor(folder)
    weights, _ = case.held_out
    for refine in (0, 1):
        expected = case.predictor.predict(weights, refine=refine)
        assert torch.equal(back.predict(weights, refine=refine), expected)
    assert (back.model, back.config) == (case.model, case.predictor.config)
    assert sorted(path.name for path in folder.iterdir()) == [
        "predictor.json",
        "predictor.safetensors",
    ]


def test_a_predictor_of_other_points_remembers_those_of_its_fit(logistic, tmp_path):
    """Subsets with points that no fit saw are answered with care, also after a round trip."""
    points = logistic.points
    moved = replace(
        points, features=points.features + 0.5 * (torch.arange(len(points.labels)) < 3)[:, None]
    )
    bound = logistic.predictor.for_points(moved)
    write_predictor(bound, tmp_path)
    back = read_predictor(tmp_path)
    assert back.bound.unseen is not None
    assert back.bound.unseen.tolist() == bound.bound.unseen.tolist()
    weights, _ = logistic.held_out
    assert torch.equal(back(weights), bound(weights))


def test_a_file_tells_its_number_of_steps(logistic, tmp_path):
    write_predictor(logistic.predictor, tmp_path)
    path = tmp_path / "predictor.json"
    text = path.read_text()
    path.write_text(text.replace('"steps": 3', '"steps": null'))
    assert read_predictor(tmp_path).stages == logistic.predictor.stages
    path.write_text(text.replace('"steps": 3', '"steps": 4'))
    with pytest.raises(InvalidInput, match="it has 3 learned steps, not 4"):
        read_predictor(tmp_path)


def test_damage_is_named(logistic, tmp_path):
    write_predictor(logistic.predictor, tmp_path)
    tensors, description = tmp_path / "predictor.safetensors", tmp_path / "predictor.json"
    whole = tensors.read_bytes()
    for broken in (whole[:100], b"", b"\x80\x04K\x01."):
        tensors.write_bytes(broken)
        with pytest.raises(InvalidInput, match=r"predictor\.safetensors cannot be used"):
            read_predictor(tmp_path)
    tensors.unlink()
    with pytest.raises(InvalidInput, match="is missing"):
        read_predictor(tmp_path)
    tensors.write_bytes(whole)
    text = description.read_text()
    for broken in ("", "{}", text.replace('"schema_version": 1', '"schema_version": 9')):
        description.write_text(broken)
        with pytest.raises(InvalidInput, match=r"predictor\.json cannot be used"):
            read_predictor(tmp_path)


@pytest.mark.parametrize("change", ["shape", "missing", "nan"])
def test_tensors_that_do_not_fit_are_named(logistic, tmp_path, change):
    write_predictor(logistic.predictor, tmp_path)
    path = tmp_path / "predictor.safetensors"
    tensors = load_file(path)
    name = "network.first.last.bias"
    if change == "shape":
        tensors[name] = tensors[name][:-1].clone()
    elif change == "missing":
        del tensors[name]
    else:
        tensors[name] = tensors[name] * torch.nan
    save_file(tensors, path)
    with pytest.raises(InvalidInput, match=r"network\.first\.last\.bias"):
        read_predictor(tmp_path)


def test_an_unknown_family_is_an_error(logistic, tmp_path):
    write_predictor(logistic.predictor, tmp_path)
    path = tmp_path / "predictor.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": "../../etc"}))
    with pytest.raises(InvalidInput):
        read_predictor(tmp_path)
