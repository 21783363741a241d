"""Where shards are trained: processes of this machine, or the workers of a Dask or Ray cluster that is there.

    MODELPRED_RUNNER     threads (default): a process for each device of this machine, handed its blocks by a thread
                         dask, ray: tasks of the cluster that MODELPRED_CLUSTER names (optional extras)
    MODELPRED_CLUSTER    tcp://scheduler:8786 for dask; ray://head:10001, or auto on a machine of it, for ray
    MODELPRED_DEVICES    on a cluster: cpu (default), or cuda: every task asks the cluster for one GPU

The task is the same everywhere: one block, trained by one process that is pinned to one device and has no Prefect in
it, so that the numbers do not depend on where it runs. A cluster's machines need this package, one Prefect API
(PREFECT_API_URL) and a shared store (MODELPRED_STORE); they get data and subsets through the store when it is a URL,
and from the same path when it is a folder.
"""

import functools
import importlib
import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import task, unmapped
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from modelpred.errors import InvalidInput
from modelpred.targets.store import BlockJob
from modelpred.targets.worker import DevicePool, WorkerFailed, parse_devices

THREADS, DASK, RAY = "threads", "dask", "ray"
Future = PrefectFuture[str]


def _worth_another_try(_task: object, _run: object, state: State[Any]) -> bool:
    return isinstance(state.result(raise_on_failure=False), WorkerFailed)


_again: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "retries": 2,
    "retry_delay_seconds": 1,
    "retry_condition_fn": _worth_another_try,
}


@task(task_run_name="{job.block}", **_again)
def train_shard(job: BlockJob, pool: DevicePool) -> str:
    """Trains one block on the first free device; where its shard lies in the store."""
    return str(pool.train(job))


@task(task_run_name="{block}", **_again)
def train_shard_there(block: str, content: str, device: str) -> str:  # noqa: ARG001 - names the run
    """Trains one block in the cluster's worker that runs this; where its shard lies in the store.

    Args:
        block: its name.
        content: the job as JSON: it travels as text, and the worker checks it.
        device: cpu or cuda.
    """
    return str(_own_pool(device).train(BlockJob.model_validate_json(content)))


@functools.lru_cache(maxsize=1)
def _own_pool(device: str) -> DevicePool:
    """This cluster worker's process for training, kept from task to task.

    A cluster that hands out GPUs shows each worker only its own, as number 0.
    """
    return DevicePool(parse_devices("cuda:0" if device == "cuda" else "cpu:1"))


@contextmanager
def training(jobs: Sequence[BlockJob]) -> Generator[list[Future]]:
    """The jobs on their way, one future each; inside the block they are trained."""
    if kind() == THREADS:
        with DevicePool(devices()) as pool:
            futures: Any = train_shard.map(jobs, pool=unmapped(pool))
            yield list(futures)
        return
    device = _cluster_device()
    with _asking_for(device):
        spread: Any = train_shard_there.map(
            [job.block for job in jobs],
            [job.model_dump_json() for job in jobs],
            unmapped(device),
        )
    yield list(spread)


def finished(futures: Sequence[Future]) -> Iterable[Future]:
    """The futures as their blocks are finished; a cluster's in their own order."""
    if kind() == THREADS:
        yield from as_completed(list(futures))
        return
    for future in futures:
        future.wait()
        yield future


@contextmanager
def _asking_for(device: str) -> Generator[None]:
    """Tasks that are submitted inside ask the cluster for one GPU each, or for none."""
    # Imported by name: the optional extras need not be there.
    if kind() == DASK:
        dask = importlib.import_module("dask")
        asking = dask.annotate(resources={"GPU": 1} if device == "cuda" else {})
    else:
        prefect_ray = importlib.import_module("prefect_ray.context")
        asking = prefect_ray.remote_options(num_cpus=1, num_gpus=1 if device == "cuda" else 0)
    with asking:
        yield


def runner() -> TaskRunner[Any]:
    """What runs the tasks: a thread for each device, or the cluster.

    Raises:
        InvalidInput: an unknown runner, one that is not installed, or no address of its cluster.
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
    try:
        return _dask(address) if chosen == DASK else _ray(address)
    except ImportError as error:
        raise InvalidInput(
            f"MODELPRED_RUNNER is {chosen}, which is not installed ({error}); "
            f"install it: pip install 'modelpred[{chosen}]'"
        ) from error


def _dask(address: str) -> TaskRunner[Any]:
    return importlib.import_module("prefect_dask").DaskTaskRunner(address=address)


def _ray(address: str) -> TaskRunner[Any]:
    # Workers find this project's code where this process has it.
    environment = {"env_vars": {"PYTHONPATH": str(Path.cwd())}}
    prefect_ray = importlib.import_module("prefect_ray")
    return prefect_ray.RayTaskRunner(address=address, init_kwargs={"runtime_env": environment})


def kind() -> str:
    """Which runner MODELPRED_RUNNER names."""
    chosen = os.environ.get("MODELPRED_RUNNER") or THREADS
    if chosen not in (THREADS, DASK, RAY):
        raise InvalidInput(f"MODELPRED_RUNNER must be threads, dask or ray, got {chosen[:80]!r}")
    return chosen


def devices() -> list[str]:
    """The devices of this machine that shards are trained on, one name for each process."""
    return parse_devices(os.environ.get("MODELPRED_DEVICES", "auto"))


def _cluster_device() -> str:
    device = os.environ.get("MODELPRED_DEVICES", "cpu")
    if device not in ("cpu", "cuda"):
        raise InvalidInput(
            f"on a cluster MODELPRED_DEVICES must be cpu or cuda, got {device[:80]!r}: "
            "the cluster's own workers say how many there are"
        )
    return device
