"""A saved ModelPred comes back whole, or not at all; nothing in it is executed."""

import hashlib
import json
import re
import shutil

import numpy as np
import polars.testing
import pytest
import safetensors.torch

from modelpred import InvalidInput, ModelPred
from modelpred.dataset import read_dataset
from modelpred.predictor import predictor_fingerprint
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
            with pytest.raises(InvalidInput, match=name.parts[0]) as refused:
                ModelPred.load(folder)
            # No stage wrote the folder, so none can write it again.
            assert not re.search("dvc|stage", str(refused.value))


def test_a_part_of_another_fit_is_refused(copy, tmp_path):
    fitted(subsets=20, seed=1).save(tmp_path / "other")
    for part in ("targets", "predictor"):
        folder = shutil.copytree(copy, tmp_path / part)
        shutil.rmtree(folder / part)
        shutil.copytree(tmp_path / "other" / part, folder / part)
        with pytest.raises(InvalidInput, match=f"{part} cannot be used: it is not the one"):
            ModelPred.load(folder)


def rewritten(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def with_hashes(folder):
    """The folder with all hashes brought up to date, as somebody who can write there could do it."""
    for part in ("dataset", "predictor"):
        seal(folder / part)
    manifest = (folder / "targets" / "manifest.json").read_bytes()
    rewritten(
        folder / "modelpred.json",
        dataset=read_dataset(folder / "dataset").fingerprint,
        predictor=predictor_fingerprint(folder / "predictor"),
        targets=hashlib.sha256(manifest).hexdigest(),
    )
    seal(folder, ["modelpred.json"])


def taken_from(part, **settings):
    """Put a part of another fit into a folder."""

    def change(folder):
        fitted(subsets=20, **settings).save(folder.parent / "other")
        shutil.rmtree(folder / part)
        shutil.copytree(folder.parent / "other" / part, folder / part)

    return change


def with_flipped_labels(folder):
    path = folder / "predictor" / "predictor.safetensors"
    tensors = safetensors.torch.load(path.read_bytes())
    tensors["points.labels"] = 1 - tensors["points.labels"]
    path.write_bytes(safetensors.torch.save(tensors))


def with_a_shard_twice(folder):
    path = folder / "targets" / "manifest.json"
    manifest = json.loads(path.read_text())
    first = manifest["shards"][0]
    shutil.copy(path.with_name(first["file"]), path.with_name("twice.parquet"))
    rewritten(path, shards=[*manifest["shards"], first | {"file": "twice.parquet"}])


def with_other_ids(folder):
    path = folder / "predictor" / "predictor.json"
    rewritten(path, row_ids=json.loads(path.read_text())["row_ids"][::-1])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (with_flipped_labels, "predictor cannot be used: it was fitted to other labels"),
        (with_other_ids, "predictor cannot be used: it was fitted to other row ids"),
        (
            lambda folder: rewritten(folder / "predictor" / "predictor.json", tolerance=1e-3),
            "predictor cannot be used: its tolerance",
        ),
        (with_a_shard_twice, "targets cannot be used: two shards hold the same subset"),
        (taken_from("targets", C=2.0), "targets cannot be used: its models are not those"),
        (
            taken_from("targets", rows=make_rows(2, 50)),
            "targets cannot be used: its subsets are of 50 rows",
        ),
        (
            taken_from("predictor", seed=1, rows=make_rows(2, 50)),
            "predictor cannot be used: it was fitted to",
        ),
        (
            taken_from("dataset", rows=make_rows(2, 50)),
            "predictor cannot be used: it was fitted to other row",
        ),
    ],
    ids=["labels", "ids", "tolerance", "twice", "family", "width", "predictor", "dataset"],
)
def test_parts_that_contradict_each_other_are_refused_though_all_hashes_are_right(
    copy, change, told
):
    change(copy)
    with_hashes(copy)
    with pytest.raises(InvalidInput, match=f"{told}.*; save the ModelPred again"):
        ModelPred.load(copy)


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
