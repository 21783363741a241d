"""Stores heal: whatever happens to entries, inputs and copies, one run ends in the same bytes, and reads each shard once."""

import dataclasses
import hashlib
import logging
import os
import shutil
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.errors import InvalidInput
from modelpred.subsets import SubsetsConfig, draw_subsets, write_subsets
from modelpred.targets import target_model
from modelpred.targets.entries import ShardStore
from modelpred.targets.jobs import BlockJob, carry_inputs
from modelpred.targets.parquet import CorruptShard, parse_shard, shard_bytes
from modelpred.targets.remote import STALE_SECONDS, UrlStore, fetched
from modelpred.targets.store import collect_shards, find_shard, train_block
from tests.targets.job_inputs import jobs_of, write_inputs

# Opened for reading, by name: every file that Python opens, through whichever library.
OPENED: Counter[str] = Counter()


def count_opened(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and isinstance(arguments[0], (str, os.PathLike)):
        path, _, flags = arguments
        if isinstance(flags, int) and flags & os.O_ACCMODE == os.O_RDONLY:
            OPENED[str(path)] += 1


sys.addaudithook(count_opened)

STORES = ("folder", "memory", "file")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Data, and subsets in five blocks."""
    place = tmp_path_factory.mktemp("inputs")
    config = SubsetsConfig(fit={"uniform": 9}, validation={"uniform": 3}, test={"bootstrap": 3})
    write_inputs(place, config, points=20, test=10)
    return place


def jobs_in(place: Path, store: str | Path) -> list[BlockJob]:
    return jobs_of(place, store, target_model("logistic", C=1.0), block_size=3)


def empty_store(kind: str, folder: str) -> str | Path:
    named = f"{folder}/{uuid.uuid4().hex} [v2]"
    return {
        "folder": Path(named),
        "memory": f"memory:/{named}",
        "file": f"file://{named}",
    }[kind]


class Shards(dict[str, bytes]):
    """Contents by block, which hypothesis does not print."""

    def __repr__(self) -> str:
        return f"Shards({list(self)})"


@pytest.fixture(scope="module")
def good(place) -> Shards:
    """The bytes of each shard, by block, as they are trained alone."""
    store = place / "good"
    jobs = jobs_in(place, store)
    return Shards({job.block: (store / train_block(job)).read_bytes() for job in jobs})


# --- damage ------------------------------------------------------------------------------------


def with_hash(job: BlockJob, data: bytes) -> str:
    sha256 = hashlib.sha256(data).hexdigest()
    return f"{job.fingerprint[:2]}/{job.fingerprint}-{sha256}.parquet"


def with_fingerprint(data: bytes, fingerprint: str) -> bytes:
    shard = parse_shard(data, name="shard")
    metadata = shard.metadata.model_copy(update={"fingerprint": fingerprint})
    return shard_bytes(shard.block, shard.trained, metadata)


def with_settings(data: bytes) -> bytes:
    shard = parse_shard(data, name="shard")
    metadata = shard.metadata.model_copy(update={"settings": {"C": 2.0}})
    return shard_bytes(shard.block, shard.trained, metadata)


def with_fewer_parameters(data: bytes) -> bytes:
    shard = parse_shard(data, name="shard")
    trained = dataclasses.replace(shard.trained, parameters=shard.trained.parameters[:, 1:])
    return shard_bytes(shard.block, trained, shard.metadata)


# What an entry holds after the damage, from its own bytes, another job's bytes and a place in them.
UNDER_ITS_OLD_HASH: dict[str, Callable[[bytes, bytes, int], bytes]] = {
    "flipped": lambda own, _, at: own[:at] + bytes([own[at] ^ 16]) + own[at + 1 :],
    "cut": lambda own, _, at: own[:at],
    "longer": lambda own, _, at: own + own[at:] + b"x",
    "of another job": lambda _own, other, _at: other,
}
UNDER_ITS_NEW_HASH: dict[str, Callable[[bytes, bytes, int], bytes]] = {
    # Without "flipped": who writes another parameter with its right hash is not found out.
    **{kind: how for kind, how in UNDER_ITS_OLD_HASH.items() if kind != "flipped"},
    "no shard": lambda _own, _other, at: b"PAR1" * at,
    "other settings": lambda own, _other, _at: with_settings(own),
    "fewer parameters": lambda own, _other, _at: with_fewer_parameters(own),
}


@st.composite
def damages(draw) -> dict[int, tuple[str, str, float]]:
    """For some of five jobs: where the damage lies, its kind, and a share of the file."""
    found: dict[int, tuple[str, str, float]] = {}
    for job in draw(st.sets(st.integers(0, 4))):
        where = draw(st.sampled_from(["gone", "old", "new", "beside", "relabelled", "obstacle"]))
        kinds = UNDER_ITS_OLD_HASH if where == "old" else UNDER_ITS_NEW_HASH
        share = draw(st.floats(0, 1, exclude_max=True))
        found[job] = (where, draw(st.sampled_from(sorted(kinds))), share)
    return found


def damage(store: ShardStore, jobs: Sequence[BlockJob], at: int, how: tuple[str, str, float]):
    """Damage one entry; returns whether its job must be trained again."""
    where, kind, share = how
    job, name = jobs[at], find_shard(jobs[at])
    assert name is not None
    files, own = store.files, store.files.read(name)
    other = store.files.read(find_shard(jobs[at - 1]) or "") if at else own[::-1]
    if where == "beside":  # the good one remains
        data = UNDER_ITS_NEW_HASH[kind](own, other, int(share * len(own)))
        files.write(with_hash(job, data), data)
        return False
    files.remove(name)
    if where == "old":
        files.write(name, UNDER_ITS_OLD_HASH[kind](own, other, int(share * len(own))))
    elif where == "new":
        data = UNDER_ITS_NEW_HASH[kind](own, other, int(share * len(own)))
        files.write(with_hash(job, data), data)
    elif where == "relabelled" and at:
        data = with_fingerprint(other, job.fingerprint)
        files.write(with_hash(job, data), data)
    elif where == "obstacle" and isinstance(job.store, Path):
        if kind < "d":
            os.mkfifo(job.store / name)
        else:
            (job.store / name / "folder").mkdir(parents=True)
    return True


@given(st.sampled_from(STORES), damages())
@settings(max_examples=25, deadline=None)
def test_one_run_trains_again_what_is_damaged_and_nothing_else(place, good, kind, drawn):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)  # most of the time of this test
        jobs = jobs_in(place, empty_store(kind, folder))
        store = ShardStore(jobs[0].store)
        for job in jobs:
            store.files.write(with_hash(job, good[job.block]), good[job.block])
        # From the last to the first, because damage uses the content of the job before.
        lost = {jobs[at].block for at in sorted(drawn, reverse=True) if damage(store, jobs, at, drawn[at])}  # fmt: skip
        trained: list[str] = []

        def train(missing: Sequence[BlockJob]) -> None:
            for job in missing:
                trained.append(job.block)
                train_block(job)

        for _ in range(2):
            out = Path(folder) / "targets"
            collect_shards(jobs, out, train=train)
            assert {block: (out / f"{block}.parquet").read_bytes() for block in good} == good
        assert sorted(trained) == sorted(lost)
        held = {name: store.files.read(name) for job in jobs for name in store.files.names(f"{job.fingerprint[:2]}/")}  # fmt: skip
        assert set(good.values()) <= set(held.values())


# --- reading once ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STORES)
def test_an_up_to_date_run_reads_each_shard_once(place, good, tmp_path, monkeypatch, kind):
    jobs = jobs_in(place, empty_store(kind, str(tmp_path)))
    for job in jobs:
        train_block(job)
    read: Counter[str] = Counter()
    for name in ("_open", "cat_file"):
        monkeypatch.setattr(MemoryFileSystem, name, counted(name, read))
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", None)  # nothing is uploaded
    monkeypatch.setattr(LocalFileSystem, "pipe_file", None)
    OPENED.clear()
    jobs = jobs_in(place, jobs[0].store)
    collected = collect_shards(jobs, tmp_path / "targets", train=lambda _: pytest.fail("trained"))
    read.update({path: times for path, times in OPENED.items() if str(tmp_path) in path})
    assert {
        Path(path).name: times for path, times in read.items() if path.endswith(".parquet")
    } == {Path(with_hash(job, good[job.block])).name: 1 for job in jobs}
    assert (len(jobs), collected.subsets) == (5, 15)


def counted(name: str, read: Counter[str]):
    original = getattr(MemoryFileSystem, name)

    def call(self, path, *arguments, **others):
        read[path] += 1
        return original(self, path, *arguments, **others)

    return call


def test_the_targets_stage_reads_shards_and_inputs_once(place, tmp_path, monkeypatch):
    from flows import runners, targets  # noqa: PLC0415

    for folder in ("dataset", "subsets"):
        shutil.copytree(place / folder, tmp_path / "artifacts" / folder)
    (tmp_path / "params.yaml").write_text("subsets: {block: 3}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODELPRED_STORE", raising=False)
    trained: list[str] = []

    def train_blocks(jobs: Sequence[BlockJob], *, finished: int) -> None:
        assert finished == 0
        trained.extend(train_block(job) for job in jobs)

    monkeypatch.setattr(runners, "train_blocks", train_blocks)
    targets.main()
    first = {path.name: path.read_bytes() for path in (tmp_path / "artifacts/targets").iterdir()}
    OPENED.clear()
    targets.main()
    read = {Path(path).name: times for path, times in OPENED.items() if path.endswith(".parquet")}
    second = {path.name: path.read_bytes() for path in (tmp_path / "artifacts/targets").iterdir()}
    assert first == second
    shards = {Path(name).name: 1 for name in trained}
    assert len(shards) == 5
    assert {name: read[name] for name in shards} == shards
    # The inputs did not change since the run before in this process.
    assert set(read) == set(shards)


# --- uploads and inputs ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "file"])
@given(st.lists(st.one_of(st.none(), st.floats(0, 1, exclude_max=True)), max_size=3))
@settings(max_examples=25, deadline=None)
def test_an_upload_is_whole_or_an_error(kind, cuts):
    """Each upload in turn arrives whole (None) or as a share of its bytes."""
    data = bytes(range(100))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        url = str(empty_store(kind, folder))
        store, left = UrlStore(url), list(cuts)
        for system in (MemoryFileSystem, LocalFileSystem):
            patch.setattr(system, "pipe_file", cutting(system.pipe_file, left))
        error: Exception | None = None
        try:
            store.write("ab/x.parquet", data)
        except OSError as found:
            error = found
        assert (error is None) == (len(cuts) < 3 or None in cuts)
        files, root = fsspec.url_to_fs(url)
        found = files.find(root)
        if error is None:
            assert [files.cat_file(path) for path in found] == [data]
        else:
            assert "only a part of 100 bytes arrives" in str(error)
            assert found == []


def cutting(pipe_file, left: list[float | None]):
    def cut(self, path, value, **others):
        share = left.pop(0) if left else None
        return pipe_file(self, path, value if share is None else value[: int(share * len(value))])

    return cut


def test_an_upload_that_was_killed_is_no_entry_and_is_swept_in_time(tmp_path, monkeypatch):
    store = UrlStore(f"file://{tmp_path}")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "mv", killed)
        patch.setattr(LocalFileSystem, "rm_file", lambda *_: None)  # as by kill -9
        with pytest.raises(KeyboardInterrupt):
            store.write("ab/x.parquet", b"content")
    assert store.names("ab/") == []
    (left,) = (tmp_path / "uploads").iterdir()
    store.sweep()
    assert left.exists()  # it may belong to a writer that is still at work
    began, _, rest = left.name.partition("-")
    left = left.rename(left.with_name(f"{int(began) - 2 * int(STALE_SECONDS)}-{rest}"))
    (tmp_path / "uploads" / "notes.txt").touch()
    store.sweep()
    assert [path.name for path in (tmp_path / "uploads").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("kind", ["memory", "file"])
@given(st.data())
@settings(max_examples=25, deadline=None)
def test_carried_inputs_and_their_copies_heal(place, kind, data):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", folder)
        url = str(empty_store(kind, folder))
        kept = UrlStore(url).carry_folder(place / "dataset")
        files, root = fsspec.url_to_fs(kept)
        original = {path.name: path.read_bytes() for path in (place / "dataset").iterdir()}
        names = st.sampled_from(sorted(original))
        for name in data.draw(st.sets(names), label="damaged uploads"):
            files.pipe_file(f"{root}/{name}", mutated(original[name], data.draw))
        for name in data.draw(st.sets(names), label="missing uploads"):
            files.rm_file(f"{root}/{name}") if files.exists(f"{root}/{name}") else None
        assert UrlStore(url).carry_folder(place / "dataset") == kept
        assert {
            path.rpartition("/")[2]: files.cat_file(path) for path in files.find(root)
        } == original

        copy = fetched(kept)
        for name in data.draw(st.sets(names), label="damaged copies"):
            (copy / name).write_bytes(mutated(original[name], data.draw))
        for name in data.draw(st.sets(names), label="missing copies"):
            (copy / name).unlink()
        copy = fetched(kept)
        assert {path.name: path.read_bytes() for path in copy.iterdir()} == original
        assert fetched(kept) == copy
        assert [path for path in copy.parent.iterdir() if path != copy] == []


def mutated(content: bytes, draw: Callable[..., int]) -> bytes:
    at = draw(st.integers(0, len(content) - 1))
    return draw(
        st.sampled_from([content[:at], content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]])
    )


def test_inputs_are_uploaded_only_for_jobs_that_leave_this_machine(place, tmp_path):
    jobs = jobs_in(place, f"file://{tmp_path}/store")
    assert not (tmp_path / "store").exists()
    carried = carry_inputs(jobs)
    assert {job.dataset for job in carried} == {carried[0].dataset}
    assert str(carried[0].dataset).startswith(f"file://{tmp_path}/store/inputs/")
    assert carry_inputs(jobs_in(place, tmp_path / "other")) == jobs_in(place, tmp_path / "other")


# --- what does not heal ------------------------------------------------------------------------


def test_a_store_that_loses_what_it_is_given_ends_the_run(place, tmp_path, caplog):
    jobs = jobs_in(place, tmp_path / "store")

    def train(missing: Sequence[BlockJob]) -> None:
        for job in missing:
            path = tmp_path / "store" / train_block(job)
            path.chmod(0o644)
            path.write_bytes(b"lost")

    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(CorruptShard, match=f"{jobs[0].block}: not in the store"),
    ):
        collect_shards(jobs, tmp_path / "targets", train=train)
    assert jobs[0].fingerprint in caplog.text
    assert "does not match the hash in its name" in caplog.text


def test_blocks_that_memory_cannot_hold_are_refused_before_workers_start(place, tmp_path):
    jobs = jobs_of(place, tmp_path / "store", target_model("mlp", hidden=10**12), block_size=3)
    with pytest.raises(InvalidInput, match=r"3 mlp models of .* of memory are needed"):
        collect_shards(jobs, tmp_path / "targets", train=lambda _: pytest.fail("trained"))


OBSTACLES: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "folder with a file": lambda path: (path.mkdir(), (path / "x").touch()),
    "pipe": os.mkfifo,
    "link to nothing": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", ["folder", "file"])
@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_what_is_no_file_in_the_place_of_a_shard_is_trained_again(place, tmp_path, kind, obstacle):
    store = empty_store(kind, str(tmp_path))
    [job, *_] = jobs_in(place, store)
    train_block(job)
    [path] = tmp_path.rglob("*.parquet")
    content = path.read_bytes()
    path.unlink()
    OBSTACLES[obstacle](path)
    assert ShardStore(store).load(job.fingerprint) is None
    train_block(job)
    [path] = tmp_path.rglob("*.parquet")
    assert path.read_bytes() == content


def test_a_stale_job_does_not_remove_what_the_store_holds(place, tmp_path):
    """The shard of the old subsets is right, though the subsets are others now."""
    shutil.copytree(place / "dataset", tmp_path / "dataset")
    shutil.copytree(place / "subsets", tmp_path / "subsets")
    job = jobs_in(tmp_path, tmp_path / "store")[0]
    path = tmp_path / "store" / train_block(job)
    config = SubsetsConfig(
        fit={"uniform": 9}, validation={"uniform": 3}, test={"bootstrap": 3}, seed=1
    )
    write_subsets(draw_subsets(config, points=20), tmp_path / "subsets")
    with pytest.raises(ValueError, match="is not that of the job"):
        collect_shards([job], tmp_path / "targets")
    assert path.is_file()
