"""A saved ModelPred comes back whole, or not at all; nothing in it is executed."""

import json
import shutil

import numpy as np
import polars.testing
import pytest

from modelpred import InvalidInput, ModelPred
from modelpred.sealed import SEAL, seal
from tests.api.conftest import ROWS, SMALL, fitted, make_rows

# The network answers in single precision, whose rounding depends on where tensors lie in memory;
# its steps along the directions that softmax hardly determines make 2e-4 of that.
NEAR = {"rtol": 1e-3, "atol": 1e-3}
FAMILIES = ["logistic", "softmax", "svm", "ridge"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory, logistic):
    folder = tmp_path_factory.mktemp("saved")
    logistic.save(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


@pytest.mark.parametrize("family", FAMILIES)
def test_everything_comes_back(family, request, tmp_path):
    estimator = request.getfixturevalue(family)
    estimator.save(str(tmp_path / "deep" / "folder"))
    loaded = ModelPred.load(str(tmp_path / "deep" / "folder"))
    weights = np.random.default_rng(0).integers(0, 3, size=(5, ROWS))
    for ask in ("predict_parameters", "retrain", "certificate"):
        found = [getattr(side, ask)(weights) for side in (estimator, loaded)]
        if found[0] is not None:
            np.testing.assert_allclose(found[0], found[1], **NEAR)
    cells, _ = make_rows(2, 10, seed=4)
    sides = [side.without([1, 2]) for side in (estimator, loaded)]
    assert sides[0].predict(cells) == pytest.approx(sides[1].predict(cells), rel=1e-3)
    losses = [side.compare().loss_after for side in sides]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    quality = ["method", "design", "parameter_error", "spearman_within_size"]
    tables = [side.fidelity().select(quality) for side in (estimator, loaded)]
    polars.testing.assert_frame_equal(*tables, rel_tol=1e-2)
    assert loaded.classes.tolist() == estimator.classes.tolist()
    assert loaded.row_ids == estimator.row_ids


@pytest.mark.parametrize("rare", [1, 3])
def test_subsets_that_were_drawn_again_for_a_rare_class_are_told(rare, caplog, tmp_path):
    cells, _ = make_rows(2)
    labels = np.where(np.arange(ROWS) < rare, "rare", "usual")
    estimator = ModelPred("logistic", subsets=60, predictor=SMALL, progress=False).fit(
        cells, labels
    )
    found, bank = estimator.outcomes, estimator.trained_subsets
    assert found["subsets"].sum() == len(bank.ids)
    lacking = sum(not row[:rare].any() or not row[rare:].any() for row in bank.weights)
    assert found["degenerate"].sum() == lacking == 0
    redrawn = found["redrawn"].sum()
    assert 5 < redrawn < len(bank.ids)
    told = f"{redrawn} of {len(bank.ids)} subsets lacked a class and were drawn again, none lacks one now"
    assert told in caplog.messages
    estimator.save(tmp_path)
    polars.testing.assert_frame_equal(ModelPred.load(tmp_path).outcomes, found)
    assert estimator.fidelity()["left_out"].sum() == 0


def test_a_loaded_one_saves_the_same_bytes(saved, tmp_path):
    ModelPred.load(saved).save(tmp_path)
    for path in (path for path in saved.rglob("*") if path.is_file()):
        assert (tmp_path / path.relative_to(saved)).read_bytes() == path.read_bytes(), path


def test_only_parquet_json_and_safetensors_are_written(saved):
    files = {path.suffix for path in saved.rglob("*") if path.is_file() and path.name != SEAL}
    assert files == {".parquet", ".json", ".safetensors"}


def test_a_smaller_fit_leaves_no_shard_of_a_larger_one(saved, tmp_path):
    fitted(subsets=600).save(tmp_path)
    fitted(subsets=20).save(tmp_path)
    names = {path.name for path in (tmp_path / "targets").glob("fit-*")}
    assert names == {"fit-uniform-0000.parquet", "fit-bootstrap-0000.parquet"}
    assert len(ModelPred.load(tmp_path).trained_subsets.select(role="fit").ids) == 20


def test_every_file_is_needed_and_none_may_change(saved, tmp_path):
    names = [path.relative_to(saved) for path in saved.rglob("*") if path.is_file()]
    assert len(names) > 8
    for number, name in enumerate(names):
        for damage in ("removed", "flipped"):
            folder = shutil.copytree(saved, tmp_path / f"{number}-{damage}")
            content = bytearray((folder / name).read_bytes())
            (folder / name).unlink()
            if damage == "flipped":
                content[len(content) // 2] ^= 1
                (folder / name).write_bytes(content)
            with pytest.raises(InvalidInput, match=name.parts[0]):
                ModelPred.load(folder)


def test_a_part_of_another_fit_is_refused(copy, tmp_path):
    fitted(subsets=20, seed=1).save(tmp_path / "other")
    for part in ("targets", "predictor"):
        folder = shutil.copytree(copy, tmp_path / part)
        shutil.rmtree(folder / part)
        shutil.copytree(tmp_path / "other" / part, folder / part)
        with pytest.raises(InvalidInput, match=f"{part} cannot be used: it is not the one"):
            ModelPred.load(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"labels": "colour"}, "labels"),
        ({"extra": 1}, "extra"),
        ({"tolerance": -1.0}, "tolerance"),
    ],
)
def test_a_description_that_is_not_one_is_refused(copy, change, told):
    path = copy / "modelpred.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InvalidInput, match=f"not the one that {SEAL} names"):
        ModelPred.load(copy)
    seal(copy, [path.name])
    with pytest.raises(InvalidInput, match=rf"modelpred\.json cannot be used: {told}"):
        ModelPred.load(copy)


def test_what_is_not_fitted_is_not_saved(tmp_path):
    with pytest.raises(InvalidInput, match="not fitted"):
        ModelPred().save(tmp_path)
    with pytest.raises(InvalidInput, match=r"modelpred\.json is missing"):
        ModelPred.load(tmp_path)
