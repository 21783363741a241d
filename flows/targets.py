"""Stage `targets`: trains the target model on every subset, in parallel blocks.

Finished blocks are kept in the shard store, so only blocks that are not in the store are trained here,
each as a task of a Prefect flow. MODELPRED_DEVICES names the devices (`auto`, `cpu`, `cpu:N`,
`cuda:0,1`), MODELPRED_RUNNER a cluster (flows/runners.py). The numbers do not depend on them.
"""

from collections.abc import Sequence

from flows.artifacts import DATASET, PARAMS, SUBSETS, TARGETS, shard_store, write_json, written
from flows.runtime import run_stage
from modelpred.params import read_params
from modelpred.targets.jobs import BlockJob, read_inputs
from modelpred.targets.store import block_jobs, collect_shards


def main() -> None:
    """Collect the shards of this version, after training those that the store lacks."""
    params = read_params(PARAMS)
    dataset = read_inputs(DATASET, SUBSETS, params.subsets.block).dataset
    jobs = block_jobs(
        dataset=DATASET,
        subsets=SUBSETS,
        store=shard_store(),
        model=params.targets.build(classes=len(dataset.classes)),
        tolerance=params.targets.tolerance,
        block_size=params.subsets.block,
    )

    def train(missing: Sequence[BlockJob]) -> None:
        # Imported here: without a block to train, the stage needs neither Prefect nor a server.
        from flows.runners import train_blocks  # noqa: PLC0415

        train_blocks(missing, finished=len(jobs) - len(missing))

    with written(TARGETS) as folder:
        collected = collect_shards(jobs, folder, train=train)
        metrics = {
            "subsets": collected.subsets,
            "parameters": collected.parameters,
            "not_converged": collected.not_converged,
            "degenerate": collected.degenerate,
        }
        write_json(metrics, folder / "metrics.json")


if __name__ == "__main__":
    run_stage("targets", main)
