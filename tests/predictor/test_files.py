"""Predictor files: a round trip to the bit, and damage that is named."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from modelpred.errors import InvalidInput
from modelpred.predictor import (
    PredictorConfig,
    files,
    fit_predictor,
    read_predictor,
    write_predictor,
)
from modelpred.sealed import SEAL, seal, write_atomically
from modelpred.targets import target_model, train_targets
from tests.predictor.conftest import make_case, make_points

FILES = ("history.json", "predictor.json", "predictor.safetensors")


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
    assert back.history == case.predictor.history
    assert back.row_ids == case.predictor.row_ids
    assert sorted(path.name for path in folder.iterdir()) == [
        "SHA256SUMS",
        *FILES,
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
    seal(tmp_path, FILES)
    assert read_predictor(tmp_path).stages == logistic.predictor.stages
    path.write_text(text.replace('"steps": 3', '"steps": 4'))
    seal(tmp_path, FILES)
    with pytest.raises(InvalidInput, match="it has 3 learned steps, not 4"):
        read_predictor(tmp_path)


def test_damage_is_named(logistic, tmp_path):
    write_predictor(logistic.predictor, tmp_path)
    tensors, description = tmp_path / "predictor.safetensors", tmp_path / "predictor.json"
    whole = tensors.read_bytes()
    for broken in (whole[:100], b"", b"\x80\x04K\x01."):
        tensors.write_bytes(broken)
        seal(tmp_path, FILES)
        with pytest.raises(InvalidInput, match=r"predictor\.safetensors cannot be used"):
            read_predictor(tmp_path)
    tensors.unlink()
    with pytest.raises(InvalidInput, match="is missing"):
        read_predictor(tmp_path)
    tensors.write_bytes(whole)
    text = description.read_text()
    for broken in ("", "{}", text.replace('"schema_version": 2', '"schema_version": 9')):
        description.write_text(broken)
        seal(tmp_path, FILES)
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
    seal(tmp_path, FILES)
    with pytest.raises(InvalidInput, match=r"network\.first\.last\.bias"):
        read_predictor(tmp_path)


# The anchors and networks that a file can hold: how each is fitted.
KINDS = {
    "path of sizes": ("logistic", PredictorConfig(epochs=1, width=4, step_width=4, steps=2)),
    "paper": ("logistic", PredictorConfig(epochs=1, width=4, network="paper")),
    "newton": ("logistic", PredictorConfig(network="newton", steps=2)),
    "coarse training": ("mlp", PredictorConfig(epochs=1, width=4, step_width=4, steps=2)),
}


@pytest.fixture(scope="module", params=sorted(KINDS))
def written(request, tmp_path_factory):
    """A folder with a predictor of each kind."""
    family, config = KINDS[request.param]
    model = target_model(family, **({"hidden": 2, "steps": 20} if family == "mlp" else {}))
    points = make_points("logistic", 20)
    draws = torch.Generator().manual_seed(0)
    weights = torch.randint(1, 3, (24, 20), generator=draws).double()
    targets = train_targets(model, points.features, points.labels, weights, classes=2)
    fit, validation = (
        (weights[rows], targets.parameters[rows]) for rows in (slice(16), slice(16, 24))
    )
    folder = tmp_path_factory.mktemp("written")
    write_predictor(fit_predictor(config, model, points, *fit, validation=validation), folder)
    return folder


@given(data=st.data())
@settings(max_examples=40)
def test_any_tensor_that_does_not_fit_is_refused_in_one_line(written, tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "one tensor"
    folder.mkdir(exist_ok=True)
    for path in written.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    path = folder / "predictor.safetensors"
    tensors = load_file(path)
    name = data.draw(st.sampled_from(sorted(tensors)))
    tensor = tensors[name]
    match data.draw(st.sampled_from(["missing", "longer", "deeper", "nan"])):
        case "missing":
            del tensors[name]
        case "longer":
            tensors[name] = torch.cat([tensor.flatten(), tensor.flatten()[:1]])
        case "deeper":
            tensors[name] = tensor[None].clone()
        case "nan" if tensor.is_floating_point():
            tensors[name] = tensor * torch.nan
        case _:
            return
    save_file(tensors, path)
    seal(folder, FILES)
    with pytest.raises(InvalidInput, match=r"predictor\.safetensors cannot be used") as refused:
        read_predictor(folder)
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith("run the predictor stage again")


@pytest.mark.parametrize("value", ["none", "newton path", "size_path "])
def test_unknown_anchors_are_refused_with_those_that_are_known(written, tmp_path, value):
    for path in written.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "predictor.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"anchors": value}))
    seal(tmp_path, FILES)
    with pytest.raises(InvalidInput, match=f"its anchors are {value}; known: "):
        read_predictor(tmp_path)


def test_an_unknown_family_is_an_error(logistic, tmp_path):
    write_predictor(logistic.predictor, tmp_path)
    path = tmp_path / "predictor.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": "../../etc"}))
    seal(tmp_path, FILES)
    with pytest.raises(InvalidInput, match="etc"):
        read_predictor(tmp_path)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The files of two predictors of one shape, sealed; the second of other weights."""
    case, found = make_case("logistic"), []
    other = replace(case.predictor.model, C=0.01)
    for predictor in (case.predictor, replace(case.predictor, model=other)):
        for value in predictor.network.parameters():
            value.data += 0.01 * len(found)
        folder = tmp_path_factory.mktemp("two")
        write_predictor(predictor, folder)
        found.append(folder)
    return found


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_changed_bit_or_byte_is_refused_wherever_it_is(two, tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "one changed"
    folder.mkdir(exist_ok=True)
    for path in two[0].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    name = data.draw(st.sampled_from([*FILES, SEAL]))
    whole = (two[0] / name).read_bytes()
    content = bytearray(whole)
    place = data.draw(st.integers(0, len(content) - 1))
    match data.draw(st.sampled_from(["flip", "cut", "added", "zeros", "gone"])):
        case "flip":
            content[place] ^= 1 << data.draw(st.integers(0, 7))
        case "cut":
            del content[place:]
        case "added":
            content[place:place] = data.draw(st.binary(min_size=1, max_size=9))
        case "zeros":  # what a power cut leaves of a file
            content[place:] = bytes(len(content) - place) or b"\0"
        case _:
            (folder / name).unlink()
    if (folder / name).exists():
        (folder / name).write_bytes(content)
    lines = [each.decode(errors="replace").splitlines() for each in (content, whole)]
    if (folder / name).exists() and (
        bytes(content) == whole or (name == SEAL and lines[0] == lines[1])
    ):
        return
    with pytest.raises(InvalidInput) as refused:
        read_predictor(folder)
    assert "\n" not in str(refused.value)


@given(chosen=st.lists(st.sampled_from([0, 1]), min_size=4, max_size=4))
@settings(max_examples=30, deadline=None)
def test_files_of_two_predictors_are_refused(two, tmp_path_factory, chosen):
    folder = tmp_path_factory.getbasetemp() / "mixed"
    folder.mkdir(exist_ok=True)
    for name, of in zip((*FILES, SEAL), chosen, strict=True):
        (folder / name).write_bytes((two[of] / name).read_bytes())
    sealed = two[chosen[3]]
    if all((folder / name).read_bytes() == (sealed / name).read_bytes() for name in FILES):
        read_predictor(folder)
    else:
        with pytest.raises(InvalidInput, match="not the one that SHA256SUMS names"):
            read_predictor(folder)


@pytest.mark.parametrize("before", ["nothing", "sealed", "unsealed"])
@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_write_that_is_cut_short_is_never_read(logistic, tmp_path, monkeypatch, before, writes):
    if before != "nothing":
        write_predictor(logistic.predictor, tmp_path)
    if before == "unsealed":
        make_unsealed(tmp_path)
    left = [writes]

    def dying(path, content):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write_atomically(path, content)

    monkeypatch.setattr(files, "write_atomically", dying)
    other = replace(logistic.predictor, model=replace(logistic.model, C=0.01))
    with pytest.raises(KeyboardInterrupt):
        write_predictor(other, tmp_path)
    with pytest.raises(InvalidInput, match="is missing; run the predictor stage again"):
        read_predictor(tmp_path)


def make_unsealed(folder):
    """What an earlier version wrote."""
    path = folder / "predictor.json"
    path.write_text(path.read_text().replace('"schema_version": 2', '"schema_version": 1'))
    (folder / SEAL).unlink()
    (folder / "history.json").unlink()


def test_a_predictor_of_an_earlier_version_is_read_with_a_warning(logistic, tmp_path):
    write_predictor(logistic.predictor, tmp_path)
    make_unsealed(tmp_path)
    with pytest.warns(UserWarning, match="has no SHA256SUMS.*run the predictor stage again"):
        back = read_predictor(tmp_path)
    weights, _ = logistic.held_out
    assert torch.equal(back(weights), logistic.predictor(weights))
    assert back.history == ()


def test_a_predictor_is_equal_to_itself_alone_and_can_be_a_key(logistic):
    other = logistic.predictor.for_points(logistic.points)
    assert len({logistic.predictor, other, logistic.predictor}) == 2


@pytest.mark.parametrize(
    ("earlier", "reads"),
    [
        ({"network": "anchored", "pooled": None, "induced": 16}, True),
        ({"network": "anchored", "pooled": 0, "induced": 16}, True),
        ({"network": "anchored", "pooled": 64, "induced": 16}, False),
        ({"network": "attention", "pooled": None, "induced": 16}, False),
    ],
)
def test_predictors_with_the_settings_of_pooled_features(logistic, tmp_path, earlier, reads):
    """Earlier versions wrote them always, and their tensors held the scale of phi's inputs."""
    write_predictor(logistic.predictor, tmp_path)
    path, tensors = tmp_path / "predictor.json", tmp_path / "predictor.safetensors"
    description = json.loads(path.read_text())
    description["config"] |= earlier
    path.write_text(json.dumps(description))
    save_file(load_file(tensors) | {"network.centre": torch.zeros(7)}, tensors)
    seal(tmp_path, FILES)
    if reads:
        back = read_predictor(tmp_path)
        weights, _ = logistic.held_out
        assert torch.equal(back(weights), logistic.predictor(weights))
        return
    with pytest.raises(
        InvalidInput, match=r"pools row features.*run the predictor stage"
    ) as refused:
        read_predictor(tmp_path)
    assert "\n" not in str(refused.value)
