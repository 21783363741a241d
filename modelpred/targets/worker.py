"""Processes that train blocks, each pinned to one device, and the pool that hands blocks to them.

A worker (`python -m modelpred.targets.worker --device cpu:0`) reads one JSON line per job and answers with JSON lines:

    {"ready": "cpu:0"}                              once, when it can take jobs
    {"id": 3, "progress": [120, 250]}               subsets of the block that are finished, of all
    {"id": 3, "shard": "<name in the store>"}       done
    {"id": 3, "refused": "<what is wrong>"}         the job does not fit its data, or cannot be written

No pickle, and nothing of any scheduler: results are in the shard store. A worker ends as soon as its input closes, so
that none survives the process that started it. Every block is trained alone, on one processor core or one GPU: the
numbers do not depend on how many workers there are.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from types import TracebackType
from typing import IO, Any, TextIO, cast, final

import torch
from pydantic import ValidationError

from modelpred.errors import InvalidInput
from modelpred.targets.jobs import BlockJob
from modelpred.targets.store import find_shard, train_block

MODULE = "modelpred.targets.worker"
STDERR_TAIL = 2000
LONGEST_NAME = 200
# One thread for each of the libraries that torch and numpy may compute with.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)

Progress = Callable[[int, int], None]


class WorkerFailed(RuntimeError):  # noqa: N818 - says what happened, like InvalidInput
    """A worker died or answered nonsense; the message carries the end of what it wrote to stderr."""


# --- devices -----------------------------------------------------------------------------------


def parse_devices(text: str) -> list[str]:
    """One name per worker: `auto`, `cpu`, `cpu:4`, `cuda` or `cuda:0,1` -> `["cpu:0", ...]` or `["cuda:0", ...]`.

    `auto` takes every GPU, or every processor core where there is no GPU; `cpu` takes every core.

    Raises:
        InvalidInput: not one of these forms, or a GPU that is not there.
    """
    wanted = text.strip().lower()
    matched = re.fullmatch(r"auto|(cpu)(?::(\d{1,4}))?|(cuda)(?::(\d{1,3}(?:,\d{1,3})*))?", wanted)
    if matched is None:
        raise InvalidInput(
            f"devices must be auto, cpu, cpu:N, cuda or cuda:0,1, got {text[:LONGEST_NAME]!r}"
        )
    cpu, count, cuda, listed = matched.groups()
    if cuda or (not cpu and torch.cuda.is_available()):
        return _gpus([int(index) for index in listed.split(",")] if listed else None, text)
    slots = int(count) if count else _cores()
    if slots < 1:
        raise InvalidInput(f"devices must name at least one worker, got {text!r}")
    return [f"cpu:{slot}" for slot in range(slots)]


def _gpus(listed: list[int] | None, text: str) -> list[str]:
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    chosen = list(range(there)) if listed is None else listed
    if not chosen or max(chosen) >= there:
        raise InvalidInput(f"devices {text!r} asks for a GPU that is not there: {there} found")
    if len(set(chosen)) < len(chosen):
        raise InvalidInput(f"devices {text!r} names a GPU twice")
    return [f"cuda:{index}" for index in chosen]


def _cores() -> int:
    """The cores this process may use, which in a container are fewer than the machine has."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


# --- the worker's side -------------------------------------------------------------------------


def serve(device: str, requests: TextIO, answers: TextIO) -> None:
    """Trains one block per line of `requests` until that closes."""
    where = "cpu" if device.startswith("cpu") else device
    if where == "cpu":
        torch.set_num_threads(1)
    else:
        torch.cuda.set_device(where)
    answer = _Answers(answers)
    answer.send({"ready": device})
    for line in _lines_until_closed(requests):
        request = json.loads(line)
        number = request["id"]
        try:
            job = BlockJob.model_validate(request["job"])
            done = train_block(job, device=where, progress=answer.progress_of(number))
        except (InvalidInput, ValidationError) as error:
            answer.send({"id": number, "refused": str(error)})
        except (
            OSError
        ) as error:  # a full disk, or no permission to write: no other worker does better
            answer.send({"id": number, "refused": f"cannot write to the store: {error}"})
        else:
            answer.send({"id": number, "shard": done})


@final
class _Answers:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def send(self, message: dict[str, Any]) -> None:
        self._stream.write(json.dumps(message) + "\n")
        self._stream.flush()

    def progress_of(self, number: int) -> Progress:
        return lambda done, of: self.send({"id": number, "progress": [done, of]})


def _lines_until_closed(requests: TextIO) -> Iterator[str]:
    """Lines as they come; a thread ends the process when the input closes, even in the middle of a block."""
    lines: SimpleQueue[str] = SimpleQueue()

    def read() -> None:
        for line in requests:
            lines.put(line)
        # The parent is gone or has no more work. Files appear by renaming only: nothing half-written is left.
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield lines.get()


def main(arguments: Sequence[str] | None = None) -> None:
    """The worker process: answers go to the original stdout, whatever else is printed goes to stderr."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__)
    parser.add_argument("--device", default="cpu:0", help="cpu:SLOT or cuda:INDEX")
    device: str = parser.parse_args(arguments).device
    if not re.fullmatch(r"cpu(:\d+)?|cuda:\d+", device):
        parser.error(f"--device must be cpu:SLOT or cuda:INDEX, got {device!r}")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(device, sys.stdin, answers)


# --- the parent's side -------------------------------------------------------------------------


def worker_command(device: str) -> list[str]:
    """The command that starts a worker on this device."""
    return [sys.executable, "-m", MODULE, "--device", device]


@final
class _Slot:
    """One device's worker, started when first needed and again after it died."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._process: subprocess.Popen[str] | None = None
        self._stderr: IO[bytes] | None = None
        self._sent = 0

    def train(self, job: BlockJob, progress: Progress | None) -> str:
        try:
            return self._exchange(job, progress)
        except BaseException as error:
            # Whatever went wrong, an unread answer must not be taken for the next job's.
            if not isinstance(error, InvalidInput):
                self.stop()
            raise

    def _exchange(self, job: BlockJob, progress: Progress | None) -> str:
        process = self._running()
        self._sent += 1
        request = {"id": self._sent, "job": job.model_dump(mode="json")}
        with contextlib.suppress(
            BrokenPipeError
        ):  # a dead worker shows in its answer, with its stderr
            stdin = cast("TextIO", process.stdin)
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
        while True:
            answer = self._answer(process, f"block {job.block}")
            if answer.get("id") != self._sent:
                raise self._failure(f"block {job.block}", f"an answer to another job: {answer}")
            if "progress" in answer:
                if progress is not None:
                    done, of = answer["progress"]
                    progress(done, of)
            elif "refused" in answer:
                raise InvalidInput(str(answer["refused"]))
            else:
                return self._finished(job)

    def _finished(self, job: BlockJob) -> str:
        found = find_shard(job)
        if found is None:
            raise self._failure(
                f"block {job.block}", "says done, but the shard is not in the store"
            )
        return found

    def _running(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.stop()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (it lives as long as the process)
        self._process = subprocess.Popen(
            worker_command(self.device),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=os.environ | (ONE_THREAD if self.device.startswith("cpu") else {}),
            text=True,
            encoding="utf-8",
            # Ctrl-C goes to the parent alone, which then closes the workers' input.
            start_new_session=True,
        )
        self._sent = 0
        ready = self._answer(self._process, "start")
        if ready != {"ready": self.device}:
            raise self._failure("start", f"unexpected greeting {ready}")
        return self._process

    def _answer(self, process: subprocess.Popen[str], what: str) -> dict[str, Any]:
        line = cast("TextIO", process.stdout).readline()
        if not line.endswith("\n"):
            raise self._failure(what, f"died with exit status {process.wait()}")
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise self._failure(what, f"answered {line[:LONGEST_NAME]!r}, not a JSON object")
        return answer

    def _failure(self, what: str, why: str) -> WorkerFailed:
        tail = ""
        if self._stderr is not None:
            end = self._stderr.seek(0, os.SEEK_END)
            self._stderr.seek(max(0, end - STDERR_TAIL))
            tail = self._stderr.read().decode(errors="replace").strip()
        output = f"; it wrote:\n{tail}" if tail else " and wrote nothing to stderr"
        return WorkerFailed(f"the worker on {self.device} failed ({what}): {why}{output}")

    def kill(self) -> None:
        """Ends the worker in the middle of its block; may be called from another thread than the block's."""
        if (process := self._process) is not None:
            process.kill()

    def stop(self) -> None:
        """Ends the worker, if there is one, and forgets it: files appear by renaming only, so nothing is left half-written."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    cast("TextIO", pipe).close()
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None


@final
class DevicePool:
    """One worker per device, each started when first needed; `train` may be called from many threads.

    with DevicePool(parse_devices("auto")) as pool:
        shard = pool.train(job)
    """

    def __init__(self, devices: Sequence[str]) -> None:
        if not devices:
            raise InvalidInput("a device pool needs at least one device, got none")
        self.devices = tuple(devices)
        self._slots = [_Slot(device) for device in self.devices]
        self._free = list(reversed(self._slots))
        self._closed = False
        self._changed = threading.Condition()

    def __enter__(self) -> "DevicePool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def train(self, job: BlockJob, *, progress: Progress | None = None) -> str:
        """Trains one block on the first free device; returns its shard's name in the store.

        Args:
            job: the block to train.
            progress: called with the numbers of finished and of all subsets of the block.

        Raises:
            InvalidInput: the job does not fit its data; trying again does not help.
            WorkerFailed: the worker died or answered nonsense. Its device gets a fresh worker for the next job.
        """
        slot = self._take()
        try:
            return slot.train(job, progress)
        finally:
            self._give(slot)

    def close(self) -> None:
        """Ends all workers; blocks being trained are lost, finished ones are in the store."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            while busy := [slot for slot in self._slots if slot not in self._free]:
                for slot in busy:
                    slot.kill()  # its own thread sees the end of the answers and cleans up
                self._changed.wait(timeout=0.05)
            for slot in self._free:
                slot.stop()

    def _take(self) -> _Slot:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._free)
            if self._closed:
                raise WorkerFailed("the device pool is closed")
            return self._free.pop()

    def _give(self, slot: _Slot) -> None:
        with self._changed:
            self._free.append(slot)
            self._changed.notify()


if __name__ == "__main__":
    main()
