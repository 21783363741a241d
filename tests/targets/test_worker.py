"""Workers: the answer does not depend on how many there are; a dead or mad one is told from a job that does not fit."""

import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import torch

from modelpred.errors import InvalidInput
from modelpred.subsets import SubsetsConfig
from modelpred.targets import target_model, worker, worker_pool
from modelpred.targets.devices import parse_devices
from modelpred.targets.jobs import BlockJob
from modelpred.targets.store import collect_shards, train_block
from modelpred.targets.worker_pool import DevicePool, WorkerFailed, worker_command
from tests.targets.job_inputs import jobs_of, write_inputs

PARENT = psutil.Process()


def jobs_in(place: Path, *, store: str = "store") -> list[BlockJob]:
    config = SubsetsConfig(fit={"uniform": 30}, validation={"uniform": 10}, test={"uniform": 10})
    write_inputs(place, config)
    return jobs_of(place, place / store, target_model("softmax", C=1.0))


@pytest.fixture
def children() -> Callable[[], list[psutil.Process]]:
    """Living children that this test started: others of this process may belong to earlier tests."""
    earlier = set(PARENT.children())

    def started() -> list[psutil.Process]:
        alive = [child for child in PARENT.children() if child.status() != psutil.STATUS_ZOMBIE]
        return [child for child in alive if child not in earlier]

    return started


@pytest.fixture
def acting(monkeypatch) -> Callable[[str], None]:
    """Replaces the worker by a script of a few lines, to which `line` is the job that came in."""

    def replace(script: str) -> None:
        greet = 'import sys, json\nprint(json.dumps({"ready": sys.argv[1]}), flush=True)\n'
        whole = greet + "for line in sys.stdin:\n" + textwrap.indent(textwrap.dedent(script), "  ")
        monkeypatch.setattr(
            worker_pool, "worker_command", lambda device: [sys.executable, "-c", whole, device]
        )

    return replace


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("cpu:1", ["cpu:0"]),
        ("cpu:3", ["cpu:0", "cpu:1", "cpu:2"]),
        (" CPU:2 ", ["cpu:0", "cpu:1"]),
        ("cuda", ["cuda:0", "cuda:1"]),
        ("cuda:1", ["cuda:1"]),
        ("cuda:1,0", ["cuda:1", "cuda:0"]),
        ("auto", ["cuda:0", "cuda:1"]),
    ],
)
def test_each_device_of_a_text_has_one_worker(monkeypatch, text, devices):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert parse_devices(text) == devices


def test_without_a_gpu_there_is_a_worker_per_core(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cores = len(os.sched_getaffinity(0))
    assert parse_devices("auto") == parse_devices("cpu") == [f"cpu:{core}" for core in range(cores)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "devices must be auto, cpu, cpu:N, cuda or cuda:0,1, got ''"),
        ("gpu", "devices must be auto"),
        ("cpu:0", "at least one worker"),
        ("cpu:-1", "devices must be auto"),
        ("cuda:", "devices must be auto"),
        ("cuda:0,0", "names a GPU twice"),
        ("cuda:2", "asks for a GPU that is not there: 2 found"),
    ],
)
def test_other_device_texts_are_refused(monkeypatch, text, told):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InvalidInput, match=told):
        parse_devices(text)


def test_a_gpu_that_is_not_there_is_not_taken_for_a_processor(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidInput, match="0 found"):
        parse_devices("cuda")


def test_shards_are_the_same_bytes_on_any_number_of_workers_and_a_killed_one_is_replaced(
    tmp_path, children
):
    alone = jobs_in(tmp_path, store="alone")
    for job in alone:
        train_block(job)
    collect_shards(alone, tmp_path / "alone-targets")
    jobs = jobs_in(tmp_path, store="pool")
    seen: list[tuple[int, int]] = []
    with DevicePool(parse_devices("cpu:2")) as pool, ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda job: pool.train(job, progress=lambda *p: seen.append(p)), jobs[:4]))
        for process in children():
            process.kill()
            process.wait()
        pool.train(jobs[4])
    assert children() == []
    assert seen == [(10, 10)] * 4
    collect_shards(jobs, tmp_path / "pool-targets")
    for path in (tmp_path / "alone-targets").iterdir():
        assert path.read_bytes() == (tmp_path / "pool-targets" / path.name).read_bytes()


def test_a_job_that_cannot_be_done_is_bad_input_and_the_worker_goes_on(tmp_path, children):
    jobs, store = jobs_in(tmp_path), tmp_path / "store"
    with DevicePool(["cpu:0"]) as pool:
        with pytest.raises(InvalidInput, match="fit-uniform-0099 is not that of the job"):
            pool.train(jobs[0].model_copy(update={"block": "fit-uniform-0099"}))
        (before,) = children()
        store.write_text("not a folder")
        with pytest.raises(InvalidInput, match=r"cannot write to the store: .*store"):
            pool.train(jobs[0])
        store.unlink()
        assert (store / pool.train(jobs[0])).is_file()
        assert children() == [before]


def test_a_worker_ends_when_its_input_closes():
    process = subprocess.Popen(
        worker_command("cpu:0"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"ready": "cpu:0"}
        process.stdin.close()
        assert process.wait(timeout=20) == 0


def test_a_worker_refuses_a_device_that_is_none(capsys):
    with pytest.raises(SystemExit, match="2"):
        worker.main(["--device", "tpu"])
    assert "--device must be cpu:SLOT or cuda:INDEX, got 'tpu'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (
            "print('boom', file=sys.stderr); sys.exit(3)",
            r"died with exit status 3; it wrote:\nboom",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "exit status -9 and wrote"),
        ("print('all fine', flush=True)", "answered 'all fine.n', not a JSON object"),
        ("print('[1]', flush=True)", "not a JSON object"),
        ("print(json.dumps({'id': 99}), flush=True)", "an answer to another job"),
        ("print(json.dumps({'id': 1, 'shard': '/x'}), flush=True)", "shard is not in the store"),
        ("sys.stdout.write('{\"id\": 1'); sys.stdout.flush(); sys.exit(0)", "exit status 0"),
    ],
)
def test_a_worker_that_fails_is_reported_with_its_output_and_replaced(
    tmp_path, acting, script, told, children
):
    (job, *_) = jobs_in(tmp_path)
    acting(script)
    with DevicePool(["cpu:0"]) as pool:
        for _ in range(2):  # the second is a fresh worker, again the first job to it
            with pytest.raises(WorkerFailed, match=rf"worker on cpu:0 failed \(block .*{told}"):
                pool.train(job)
        assert children() == []


def test_a_worker_that_cannot_start_says_why(tmp_path, monkeypatch):
    (job, *_) = jobs_in(tmp_path)
    monkeypatch.setattr(
        worker_pool,
        "worker_command",
        lambda _: [sys.executable, "-c", "raise SystemExit('no torch')"],
    )
    with DevicePool(["cpu:0"]) as pool, pytest.raises(WorkerFailed, match=r"start.*\nno torch"):
        pool.train(job)


def test_closing_the_pool_ends_a_block_that_is_being_trained(tmp_path, acting, children):
    (job, *_) = jobs_in(tmp_path)
    acting("print(json.dumps({'id': 1, 'progress': [1, 2]}), flush=True)")
    at_work, failures = threading.Event(), []

    def train() -> None:
        try:
            pool.train(job, progress=lambda *_: at_work.set())
        except WorkerFailed as error:
            failures.append(str(error))

    with DevicePool(["cpu:0"]) as pool:
        thread = threading.Thread(target=train)
        thread.start()
        assert at_work.wait(timeout=20)
    thread.join(timeout=20)
    assert len(failures) == 1
    assert children() == []
    with pytest.raises(WorkerFailed, match="pool is closed"):
        pool.train(job)
