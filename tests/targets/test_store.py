"""The store gives back finished shards only: nothing half-written, nothing damaged, nothing of other inputs."""

import os
from pathlib import Path

import pytest
import torch

from modelpred.dataset import Dataset, DatasetConfig, prepare
from modelpred.errors import InvalidInput
from modelpred.subsets import SubsetsConfig, read_subsets
from modelpred.targets import target_model, train_targets
from modelpred.targets.entries import ShardStore
from modelpred.targets.jobs import BlockJob
from modelpred.targets.parquet import SOLVER_VERSION, CorruptShard
from modelpred.targets.remote import STALE_SECONDS
from modelpred.targets.shards import read_bank, read_shard
from modelpred.targets.store import collect_shards, find_shard, train_block
from tests.targets.job_inputs import jobs_of, write_inputs

MODEL = target_model("logistic", C=1.0)


def inputs_in(place: Path, *, seed: int = 0, fit: int = 30) -> Dataset:
    config = SubsetsConfig(
        fit={"uniform": fit}, validation={"uniform": 5}, test={"bootstrap": 10}, block=10
    )
    return write_inputs(place, config, seed=seed)


def jobs_in(place: Path) -> list[BlockJob]:
    return jobs_of(place, place / "store", MODEL)


def path_of(job: BlockJob) -> Path:
    """Train a job; returns the path of its shard in the store."""
    return Path(job.store) / train_block(job)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["logistic", "softmax", "svm", "ridge", "mlp"])
def test_a_job_of_any_family_passes_through_json(tmp_path, name):
    inputs_in(tmp_path)
    model = target_model(name)
    job = jobs_of(tmp_path, tmp_path / "store", model)[0]
    again = BlockJob.model_validate_json(job.model_dump_json())
    assert again == job
    assert target_model(again.model, **again.settings) == model


def test_the_bank_holds_what_training_gives_for_every_subset(tmp_path):
    dataset = inputs_in(tmp_path)
    jobs = jobs_in(tmp_path)
    for job in jobs:
        train_block(job)
    collect_shards(jobs, tmp_path / "targets")
    bank = read_bank(tmp_path / "targets")
    subsets = read_subsets(tmp_path / "subsets")
    assert bank.ids == subsets.ids
    assert torch.equal(bank.weights, subsets.weights)
    trained = train_targets(
        MODEL,
        dataset.features,
        dataset.labels,
        subsets.weights.double(),
        tolerance=1e-8,
        classes=len(dataset.classes),
    )
    # Another split into blocks: rounding may differ, times the conditioning of 30 points.
    torch.testing.assert_close(bank.parameters, trained.parameters, rtol=1e-6, atol=1e-6)
    assert torch.equal(bank.converged, trained.converged)
    assert torch.equal(bank.degenerate, trained.degenerate)


def test_a_job_is_trained_once_and_travels_as_json(tmp_path):
    inputs_in(tmp_path)
    job = jobs_in(tmp_path)[0]
    assert BlockJob.model_validate_json(job.model_dump_json()) == job
    path = path_of(job)
    before = path.stat()
    assert path_of(job) == path
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_more_subsets_reuse_finished_shards_and_fewer_leave_none_behind(tmp_path):
    inputs_in(tmp_path, fit=20)
    first = jobs_in(tmp_path)
    for job in first:
        train_block(job)
    collect_shards(first, tmp_path / "targets")
    small = contents(tmp_path / "targets")

    inputs_in(tmp_path, fit=40)
    more = jobs_in(tmp_path)
    missing = [job.block for job in more if find_shard(job) is None]
    assert missing == ["fit-uniform-0002", "fit-uniform-0003"]
    for job in more:
        train_block(job)
    collect_shards(more, tmp_path / "targets")
    assert len(read_bank(tmp_path / "targets").select(role="fit").ids) == 40

    inputs_in(tmp_path, fit=20)
    collect_shards(jobs_in(tmp_path), tmp_path / "targets")
    assert contents(tmp_path / "targets") == small


def test_what_befalls_the_output_does_not_befall_the_store(tmp_path):
    inputs_in(tmp_path)
    jobs = jobs_in(tmp_path)
    kept = [path_of(job) for job in jobs]
    before = [path.read_bytes() for path in kept]
    for entry in collect_shards(jobs, tmp_path / "targets").entries:
        with (tmp_path / "targets" / entry.file).open("r+b") as file:
            file.write(b"scribble")
    assert [path.read_bytes() for path in kept] == before
    collect_shards(jobs, tmp_path / "targets")
    assert len(read_bank(tmp_path / "targets").ids) == 45


def test_an_interrupted_write_leaves_no_entry_and_is_swept_in_time(tmp_path, monkeypatch):
    inputs_in(tmp_path)
    job = jobs_in(tmp_path)[0]
    store = ShardStore(job.store)
    path = path_of(job)
    good = path.read_bytes()
    path.unlink()
    left = path.parent / f".{path.name}.x.part"
    left.write_bytes(good[:100])
    assert store.find(job.fingerprint) is None
    store.sweep()
    assert left.exists()  # it may belong to a writer that is still at work
    old = left.stat().st_mtime - 2 * STALE_SECONDS
    os.utime(left, (old, old))
    store.sweep()
    assert not left.exists()

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match="No space left"):
            train_block(job)
    assert contents(Path(job.store)) == {}
    assert path_of(job).read_bytes() == good


def test_a_job_whose_inputs_changed_since_is_refused(tmp_path):
    inputs_in(tmp_path)
    job = jobs_in(tmp_path)[0]
    inputs_in(tmp_path, seed=1)
    with pytest.raises(
        InvalidInput, match=r"test-bootstrap-0000 is not that of the job; .* run the targets"
    ):
        train_block(job)
    assert not job.store.exists()


def test_collecting_before_training_names_the_block(tmp_path):
    inputs_in(tmp_path)
    jobs = jobs_in(tmp_path)
    train_block(jobs[0])
    with pytest.raises(CorruptShard, match=f"{jobs[1].block}: not in the store"):
        collect_shards(jobs, tmp_path / "targets")


def test_a_shard_says_what_it_follows_from(tmp_path):
    dataset = inputs_in(tmp_path)
    job = jobs_in(tmp_path)[0]
    told = read_shard(path_of(job)).metadata
    assert (told.fingerprint, told.dataset) == (job.fingerprint, dataset.fingerprint)
    assert (told.model, told.settings, told.tolerance) == ("logistic", {"C": 1.0}, 1e-8)


# Sums of absolute parameters over three subsets of iris, as SOLVER_VERSION 2 computes them.
SOLVED = {
    ("logistic", 2): 11.676431132818912,
    ("mlp", 2): 109.66880550867421,
}


@pytest.mark.parametrize("family", ["logistic", "mlp"])
def test_a_solver_with_other_numbers_has_another_version(family):
    dataset = prepare(DatasetConfig(source="iris", points=30, test=20))
    weights = torch.ones(3, 30, dtype=torch.float64)
    weights[1, ::2], weights[2, ::3] = 0, 2
    model = target_model(family)
    trained = train_targets(model, dataset.features, dataset.labels, weights, tolerance=1e-10)
    # Rounding of other machines stays far below 1e-6; a change of method for the mlp does not.
    assert trained.parameters.abs().sum().item() == pytest.approx(
        SOLVED[family, SOLVER_VERSION], rel=1e-6
    ), "the solver's numbers changed: raise SOLVER_VERSION, or finished shards are reused"
