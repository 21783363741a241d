"""Trains blocks as tasks of a Prefect flow: in processes of this machine or on a Dask or Ray cluster.

    MODELPRED_RUNNER     threads (default): one thread and one process for each device of this machine
                         dask, ray: tasks on the cluster that MODELPRED_CLUSTER names (optional extras)
    MODELPRED_CLUSTER    tcp://scheduler:8786 for dask; ray://head:10001, or auto on a machine of the cluster, for ray
    MODELPRED_DEVICES    on a cluster: cpu (default), or cuda: every task requests one GPU

A task is one block. It is trained by one process that is pinned to one device and does not import Prefect, so the
numbers do not depend on the runner. The machines of a cluster need this package, one Prefect API (PREFECT_API_URL) and a
shared store (MODELPRED_STORE). If the store is a URL, they read data and subsets from it; otherwise from the same path.
"""

# First: without Prefect, DVC and MLflow it ends the process in one line.
import flows.orchestration  # noqa: F401 # pyright: ignore[reportUnusedImport]

# isort: split

import functools
import importlib
import os
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import flow, task, unmapped
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.local_training import devices
from flows.server import prefect_api
from modelpred.errors import InvalidInput
from modelpred.extras import optional_imports
from modelpred.progress import progress_bar
from modelpred.targets.devices import parse_devices
from modelpred.targets.jobs import BlockJob, carry_inputs
from modelpred.targets.worker_pool import DevicePool, WorkerFailed

RECORD_SECONDS = 1.0  # between two updates of the progress in Prefect
THREADS, DASK, RAY = "threads", "dask", "ray"
Future = PrefectFuture[str]


def train_blocks(jobs: Sequence[BlockJob], *, finished: int) -> None:
    """Train all jobs in a flow named `targets`; finished blocks stay in the store if a job fails.

    Args:
        jobs: the blocks to train.
        finished: number of blocks that the store holds already, for the progress bar.

    Raises:
        InvalidInput: a job that does not fit its data, or a runner that cannot be used.
        WorkerFailed: a worker failed three times on one block.
    """
    total = finished + len(jobs)

    @flow(name="targets", task_runner=runner())
    def targets() -> None:
        artifact: Any = create_progress_artifact(
            0.0, key="targets", description="Blocks of subsets that are trained"
        )

        recorded = 0.0
        with _submitted(jobs) as futures, progress_bar("targets") as progress:
            progress(finished, total, "")
            for done, _ in enumerate(_as_finished(futures), start=finished + 1):
                progress(done, total, "")
                if done == total or time.monotonic() - recorded > RECORD_SECONDS:
                    recorded = time.monotonic()
                    update_progress_artifact(artifact, progress=100 * done / total)
            for future in futures:  # raises the first failure, after all others have been tried
                future.result()

    with prefect_api():
        targets()


def _retryable(_task: object, _run: object, state: State[Any]) -> bool:
    return isinstance(state.result(raise_on_failure=False), WorkerFailed)


_retries: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "retries": 2,
    "retry_delay_seconds": 1,
    "retry_condition_fn": _retryable,
}


@task(task_run_name="{job.block}", **_retries)
def train_shard(job: BlockJob, pool: DevicePool) -> str:
    """Train one block on the first free device; returns its shard's name in the store."""
    return pool.train(job)


@task(task_run_name="{block}", **_retries)
def train_shard_there(block: str, content: str, device: str) -> str:  # noqa: ARG001 - for the name of the run
    """Train one block in the cluster worker that runs this task; returns its shard's name in the store.

    Args:
        block: name of the block.
        content: the job as JSON text, which the worker checks.
        device: cpu or cuda.
    """
    return _own_pool(device).train(BlockJob.model_validate_json(content))


@functools.lru_cache(maxsize=1)
def _own_pool(device: str) -> DevicePool:
    """The training process of this cluster worker, reused by its tasks.

    A cluster that assigns GPUs shows each worker only its own, as number 0.
    """
    return DevicePool(parse_devices("cuda:0" if device == "cuda" else "cpu:1"))


@contextmanager
def _submitted(jobs: Sequence[BlockJob]) -> Generator[list[Future]]:
    """Submit the jobs; gives one future each. The training processes run during the block."""
    if kind() == THREADS:
        with DevicePool(devices()) as pool:
            futures: Any = train_shard.map(jobs, pool=unmapped(pool))
            yield list(futures)
        return
    device = _cluster_device()
    with _resources(device):
        spread: Any = train_shard_there.map(
            [job.block for job in jobs],
            [job.model_dump_json() for job in carry_inputs(jobs)],
            unmapped(device),
        )
    yield list(spread)


def _as_finished(futures: Sequence[Future]) -> Iterable[Future]:
    """Yield the futures in the order in which they finish; on a cluster in the order of submission."""
    if kind() == THREADS:
        yield from as_completed(list(futures))
        return
    for future in futures:
        future.wait()
        yield future


@contextmanager
def _resources(device: str) -> Generator[None]:
    """Tasks submitted in the block request one GPU each, or none."""
    # Imported by name: the optional extras need not be installed.
    if kind() == DASK:
        dask = importlib.import_module("dask")
        request = dask.annotate(resources={"GPU": 1} if device == "cuda" else {})
    else:
        prefect_ray = importlib.import_module("prefect_ray.context")
        request = prefect_ray.remote_options(num_cpus=1, num_gpus=1 if device == "cuda" else 0)
    with request:
        yield


def runner() -> TaskRunner[Any]:
    """The task runner: a thread for each device, or the cluster.

    Raises:
        InvalidInput: the runner is unknown or not installed, or its cluster has no address.
    """
    chosen = kind()
    if chosen == THREADS:
        return ThreadPoolTaskRunner(max_workers=len(devices()))
    address = os.environ.get("MODELPRED_CLUSTER")
    if not address:
        raise InvalidInput(
            f"MODELPRED_RUNNER is {chosen} but MODELPRED_CLUSTER names no cluster; "
            "set it to the address of the scheduler, such as tcp://host:8786"
        )
    _cluster_device()
    with optional_imports():
        return _dask(address) if chosen == DASK else _ray(address)


def _dask(address: str) -> TaskRunner[Any]:
    return importlib.import_module("prefect_dask").DaskTaskRunner(address=address)


def _ray(address: str) -> TaskRunner[Any]:
    # Workers import the code of this project from the folder of this process.
    environment = {"env_vars": {"PYTHONPATH": str(Path.cwd())}}
    prefect_ray = importlib.import_module("prefect_ray")
    return prefect_ray.RayTaskRunner(address=address, init_kwargs={"runtime_env": environment})


def kind() -> str:
    """The runner that MODELPRED_RUNNER names."""
    chosen = os.environ.get("MODELPRED_RUNNER") or THREADS
    if chosen not in (THREADS, DASK, RAY):
        raise InvalidInput(f"MODELPRED_RUNNER must be threads, dask or ray, got {chosen[:80]!r}")
    return chosen


def _cluster_device() -> str:
    device = os.environ.get("MODELPRED_DEVICES", "cpu")
    if device not in ("cpu", "cuda"):
        raise InvalidInput(
            f"on a cluster MODELPRED_DEVICES must be cpu or cuda, got {device[:80]!r}: "
            "the cluster decides how many workers there are"
        )
    return device
