"""Stage `targets`: trains the target model on every subset, block by block, on the devices there are.

A finished block lies in the shard store, so that only blocks that no run has trained yet are trained
here. MODELPRED_DEVICES names the devices (`auto`, `cpu`, `cpu:N`, `cuda:0,1`); the numbers do not
depend on them.
"""

import os
from pathlib import Path
from typing import Any

from prefect import flow, task, unmapped
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import as_completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.artifacts import DATASET, PARAMS, SUBSETS, TARGETS, shard_store, write_json, written
from flows.runtime import Progress, run_stage
from modelpred.dataset import read_dataset
from modelpred.params import read_params
from modelpred.targets.shards import read_bank
from modelpred.targets.store import BlockJob, ShardStore, block_jobs, collect_shards
from modelpred.targets.worker import DevicePool, WorkerFailed, parse_devices


def _worth_another_try(_task: object, _run: object, state: State[Any]) -> bool:
    return isinstance(state.result(raise_on_failure=False), WorkerFailed)


@task(
    task_run_name="{job.block}",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=1,
    retry_condition_fn=_worth_another_try,
)
def train_shard(job: BlockJob, pool: DevicePool) -> Path:
    """Trains one block on the first free device; where its shard lies in the store."""
    return pool.train(job)


@flow
def targets() -> None:
    """Trains the blocks that the store does not hold, then links this version's shards in."""
    params = read_params(PARAMS)
    jobs = block_jobs(
        dataset=DATASET,
        subsets=SUBSETS,
        store=shard_store(),
        model=params.targets.build(classes=len(read_dataset(DATASET).classes)),
        tolerance=params.targets.tolerance,
        block_size=params.subsets.block,
    )
    store = ShardStore(shard_store())
    missing = [job for job in jobs if store.find(job.fingerprint) is None]
    if missing:
        _train(missing, ready=len(jobs) - len(missing))
    with written(TARGETS) as folder:
        collect_shards(jobs, folder)
        bank = read_bank(folder)
        metrics = {
            "subsets": len(bank.ids),
            "parameters": bank.parameters.shape[1],
            "not_converged": int((~bank.converged).sum()),
            "degenerate": int(bank.degenerate.sum()),
        }
        write_json(metrics, folder / "metrics.json")


def _train(jobs: list[BlockJob], *, ready: int) -> None:
    """Trains all jobs before it raises the first failure: what is finished stays in the store."""
    with DevicePool(devices()) as pool, Progress("targets") as progress:
        progress(ready, ready + len(jobs))
        futures = train_shard.map(jobs, pool=unmapped(pool))
        for done, _ in enumerate(as_completed(list(futures)), start=ready + 1):
            progress(done, ready + len(jobs))
        for future in futures:
            future.result()


def devices() -> list[str]:
    """The devices that shards are trained on, one name for each process."""
    return parse_devices(os.environ.get("MODELPRED_DEVICES", "auto"))


def runner() -> ThreadPoolTaskRunner[Any]:
    """A thread for each device."""
    return ThreadPoolTaskRunner(max_workers=len(devices()))


if __name__ == "__main__":
    run_stage(targets, runner=runner)
