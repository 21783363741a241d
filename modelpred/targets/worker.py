"""A process that trains blocks on one device; worker_pool.py starts it and hands it blocks.

A worker (`python -m modelpred.targets.worker --device cpu:0`) reads one JSON line per job and answers with JSON lines:

    {"ready": "cpu:0"}                              once, when it can take jobs
    {"id": 3, "progress": [120, 250]}               subsets of the block that are finished, of all
    {"id": 3, "shard": "<name in the store>"}       done
    {"id": 3, "refused": "<what is wrong>"}         the job does not fit its data, or cannot be written

It does not use pickle or a scheduler: results are in the shard store. A worker ends when its input closes, so that none
survives the process that started it. Each block is trained alone, on one processor core or one GPU: the numbers do not
depend on how many workers there are.
"""

import argparse
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any, TextIO, final

import torch
from pydantic import ValidationError

from modelpred.errors import InvalidInput
from modelpred.targets.jobs import BlockJob
from modelpred.targets.store import train_block

MODULE = "modelpred.targets.worker"

Progress = Callable[[int, int], None]


def serve(device: str, requests: TextIO, answers: TextIO) -> None:
    """Train one block per line of `requests` until that closes."""
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
        except OSError as error:
            # A full disk, or no permission to write: another worker would fail too.
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
    """Yield lines as they come; a thread ends the process when the input closes, even in the middle of a block."""
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
    """Run the worker: answers go to the original stdout, anything else that is printed to stderr."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__)
    parser.add_argument("--device", default="cpu:0", help="cpu:SLOT or cuda:INDEX")
    device: str = parser.parse_args(arguments).device
    if not re.fullmatch(r"cpu(:\d+)?|cuda:\d+", device):
        parser.error(f"--device must be cpu:SLOT or cuda:INDEX, got {device!r}")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(device, sys.stdin, answers)


if __name__ == "__main__":
    main()
