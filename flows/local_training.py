"""Trains blocks in processes of this machine, one for each device, without Prefect.

MODELPRED_RUNNER=plain chooses it. The processes, the retries and the numbers are those of
flows/runners.py; what is missing are Prefect's records of each block.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial

from modelpred.progress import progress_bar
from modelpred.targets.devices import parse_devices
from modelpred.targets.jobs import BlockJob
from modelpred.targets.worker_pool import DevicePool, WorkerFailed

PLAIN = "plain"
RETRIES = 2
SHARE = 1000  # steps of the progress bar for a block


def devices() -> list[str]:
    """The devices of this machine to train on, one name for each process."""
    return parse_devices(os.environ.get("MODELPRED_DEVICES", "auto"))


def train_blocks(jobs: Sequence[BlockJob], *, finished: int) -> None:
    """Train all jobs; finished blocks stay in the store if a job fails.

    Args:
        jobs: the blocks to train.
        finished: number of blocks that the store holds already, for the progress bar.

    Raises:
        InvalidInput: a job that does not fit its data.
        WorkerFailed: a worker failed three times on one block.
    """
    names = devices()
    total, within = SHARE * (finished + len(jobs)), dict.fromkeys((job.block for job in jobs), 0)
    with (
        ThreadPoolExecutor(len(names)) as threads,
        DevicePool(names) as pool,  # closed first: its end ends the threads' blocks
        progress_bar("targets") as progress,
    ):

        def report(block: str, done: int, of: int) -> None:
            within[block] = SHARE * done // max(1, of)
            progress(SHARE * finished + sum(within.values()), total, "")

        futures = [threads.submit(_train, job, pool, partial(report, job.block)) for job in jobs]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _train(job: BlockJob, pool: DevicePool, report: Callable[[int, int], None]) -> None:
    """Train one block on the first free device, again if its worker failed."""
    for attempt in range(1 + RETRIES):
        try:
            pool.train(job, progress=report)
            break
        except WorkerFailed:
            if attempt == RETRIES:
                raise
    report(1, 1)
