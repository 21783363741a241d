"""Stage `targets`: trains the target model on every subset, block by block, on the devices there are.

A finished block lies in the shard store, so that only blocks that no run has trained yet are trained
here. MODELPRED_DEVICES names the devices (`auto`, `cpu`, `cpu:N`, `cuda:0,1`), MODELPRED_RUNNER a
cluster that they are in (flows/runners.py); the numbers do not depend on them.
"""

from prefect import flow

from flows.artifacts import DATASET, PARAMS, SUBSETS, TARGETS, shard_store, write_json, written
from flows.runners import finished, runner, training
from flows.runtime import Progress, run_stage
from modelpred.dataset import read_dataset
from modelpred.params import read_params
from modelpred.targets.shards import read_bank
from modelpred.targets.store import BlockJob, block_jobs, collect_shards, find_shard


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
    missing = [job for job in jobs if find_shard(job) is None]
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
    with training(jobs) as futures, Progress("targets") as progress:
        progress(ready, ready + len(jobs))
        for done, _ in enumerate(finished(futures), start=ready + 1):
            progress(done, ready + len(jobs))
        for future in futures:
            future.result()


if __name__ == "__main__":
    run_stage(targets, runner=runner)
