"""The pool of worker processes that train blocks, one per device.

Communication with a worker is described in worker.py.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import IO, Any, TextIO, cast, final

from modelpred.errors import InvalidInput
from modelpred.targets.jobs import BlockJob
from modelpred.targets.store import find_shard
from modelpred.targets.worker import MODULE, Progress

STDERR_TAIL = 2000
LONGEST_SHOWN = 200  # characters of a malformed answer
# One thread for each of the libraries that torch and numpy may compute with.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)


class WorkerFailed(RuntimeError):  # noqa: N818 - says what happened, like InvalidInput
    """A worker died or gave a malformed answer; the message ends with what it wrote to stderr."""


def worker_command(device: str) -> list[str]:
    """Return the command that starts a worker on this device."""
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
        # That a worker died shows when its answer is read, with what it wrote to stderr.
        with contextlib.suppress(BrokenPipeError):
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
            raise self._failure(what, f"answered {line[:LONGEST_SHOWN]!r}, not a JSON object")
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
        """End the worker in the middle of its block; may be called from another thread than the block's."""
        if (process := self._process) is not None:
            process.kill()

    def stop(self) -> None:
        """End the worker, if there is one. No file is left half-written, as files appear by renaming only."""
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
        """Train one block on the first free device and return its shard's name in the store.

        Args:
            job: the block to train.
            progress: called with the numbers of finished and of all subsets of the block.

        Raises:
            InvalidInput: the job does not fit its data; trying again does not help.
            WorkerFailed: the worker died or gave a malformed answer. Its device gets a new worker for the next job.
        """
        slot = self._take()
        try:
            return slot.train(job, progress)
        finally:
            self._give(slot)

    def close(self) -> None:
        """End all workers. Blocks that are being trained are lost, finished ones are in the store."""
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
