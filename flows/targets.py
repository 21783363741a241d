"""Stage `targets`: trains the target model on every subset, in parallel blocks.

Finished blocks are kept in the shard store, so only blocks that are not in the store are trained here,
each as a task of a Prefect flow. MODELPRED_DEVICES names the devices (`auto`, `cpu`, `cpu:N`,
`cuda:0,1`), MODELPRED_RUNNER a cluster (flows/runners.py). The numbers do not depend on them.
"""

from flows.artifacts import DATASET, PARAMS, SUBSETS, TARGETS, shard_store, write_json, written
from flows.runtime import run_stage
from modelpred.dataset import read_dataset
from modelpred.params import read_params
from modelpred.targets.shards import read_bank
from modelpred.targets.store import block_jobs, collect_shards, find_shard


def main() -> None:
    """Train the blocks that the store lacks, then link the shards of this version."""
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
        # Imported here: without a block to train, the stage needs neither Prefect nor a server.
        from flows.runners import train_blocks  # noqa: PLC0415

        train_blocks(missing, finished=len(jobs) - len(missing))
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


if __name__ == "__main__":
    run_stage("targets", main)
