"""Batches of models that a study trains on a cluster have the parameters of those trained in this process."""

import dataclasses
import tempfile
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from flows import runners
from flows.study_training import LEAST, ClusterTraining, study_training
from modelpred.dataset import DatasetConfig, prepare, write_dataset
from modelpred.errors import InvalidInput
from modelpred.refits.retraining import Retraining, train_here
from modelpred.targets import target_model
from modelpred.targets.points import dataset_points
from modelpred.targets.store import train_block


@pytest.fixture(scope="module")
def dataset():
    return prepare(DatasetConfig(source="iris", points=30, test=8))


@pytest.fixture(scope="module")
def folder(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "dataset"
    write_dataset(dataset, folder)
    return folder


class Trained:
    """Stands for the cluster: trains blocks in this process and counts them."""

    def __init__(self):
        self.blocks = 0

    def __call__(self, jobs, *, finished):
        """Train the blocks, the last one first."""
        del finished
        self.blocks += len(jobs)
        for job in reversed(jobs):
            train_block(job)


def batch(many: int, rows: int, kind: torch.dtype, seed: int) -> torch.Tensor:
    counts = np.random.default_rng(seed).integers(0, 3, (many, rows))
    counts[:: max(1, many // 3)] = 0
    return torch.from_numpy(counts).to(kind)


@given(
    many=st.integers(LEAST, LEAST + 40),
    kind=st.sampled_from([torch.uint8, torch.int64, torch.float32, torch.float64]),
    tolerance=st.sampled_from([1e-6, 1e-9]),
    seed=st.integers(0, 9),
)
@settings(max_examples=2, phases=[Phase.generate])  # to shrink would take minutes
def test_models_trained_in_blocks_elsewhere_have_the_same_parameters(
    dataset, folder, *, many, kind, tolerance, seed
):
    points = dataset_points(dataset)
    weights = batch(many, len(points.labels), kind, seed)
    with (
        tempfile.TemporaryDirectory() as place,
        chdir(place),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.delenv("MODELPRED_STORE", raising=False)
        patch.setattr(runners, "train_blocks", trained := Trained())
        retraining = Retraining(
            target_model("softmax"), points, training=ClusterTraining(points, folder)
        ).with_tolerance(tolerance)
        there = retraining.train(weights)
        blocks = trained.blocks
        again = retraining.train(weights)
        assert [each.name for each in Path(".modelpred").iterdir()] == ["shards"]
    here = train_here(retraining, weights, progress=lambda *_: None)
    for field in dataclasses.fields(here):
        own, others = getattr(here, field.name), getattr(there, field.name)
        assert own.dtype == others.dtype
        if field.name in ("objective", "gradient_norm"):  # sums whose order depends on the block
            np.testing.assert_allclose(others, own, rtol=1e-12, atol=1e-10)
        else:
            assert own.numpy().tobytes() == others.numpy().tobytes()
        assert torch.equal(getattr(again, field.name), others)
    assert trained.blocks == blocks > 1


@pytest.mark.parametrize("case", ["few", "fractions", "other rows", "start"])
def test_what_a_block_cannot_describe_is_trained_in_this_process(dataset, folder, case):
    points = dataset_points(dataset)
    weights = batch(LEAST, len(points.labels), torch.float64, 0)
    training = ClusterTraining(points, folder)
    retraining = Retraining(target_model("softmax"), points, training=training)
    if case == "few":
        weights = weights[1:]
    elif case == "fractions":
        weights = weights / 2
    elif case == "other rows":
        moved = dataclasses.replace(points, features=points.features.flip(0))
        retraining = retraining.for_points(moved)
    else:
        full = retraining.full_parameters()
        retraining = Retraining(target_model("softmax"), points, start=full, training=training)
    here = train_here(retraining, weights, progress=lambda *_: None)
    assert torch.equal(retraining.train(weights).parameters, here.parameters)


@pytest.mark.parametrize("runner", ["", "threads", "plain"])
def test_without_a_cluster_studies_train_in_this_process(dataset, folder, monkeypatch, runner):
    monkeypatch.setenv("MODELPRED_RUNNER", runner)
    assert study_training(dataset, folder) is train_here


def test_an_unknown_runner_is_one_line(dataset, folder, monkeypatch):
    monkeypatch.setenv("MODELPRED_RUNNER", "slurm")
    with pytest.raises(InvalidInput, match="must be threads, dask or ray, got 'slurm'"):
        study_training(dataset, folder)
