"""Stage `targets`: trains the target model on every subset, in parallel blocks.

Finished blocks are kept in the shard store, so only blocks that are not in the store are trained here,
each as a task of a Prefect flow. MODELPRED_DEVICES names the devices (`auto`, `cpu`, `cpu:N`,
`cuda:0,1`), MODELPRED_RUNNER a cluster (flows/runners.py). The numbers do not depend on them.
"""

import os
import sys
from collections.abc import Sequence

from flows import local_training
from flows.artifacts import DATASET, PARAMS, SUBSETS, TARGETS, shard_store, write_json, written
from flows.runtime import run_stage
from modelpred.params import read_params
from modelpred.sealed import check_inputs, remake
from modelpred.targets.jobs import BlockJob, read_inputs
from modelpred.targets.outcomes import lost, outcomes
from modelpred.targets.store import block_jobs, collect_shards


def main() -> None:
    """Collect the shards of this version, after training those that the store lacks."""
    params = read_params(PARAMS)
    check_inputs(SUBSETS, again=remake("subsets"))
    inputs = read_inputs(DATASET, SUBSETS, params.subsets.block)
    jobs = block_jobs(
        dataset=DATASET,
        subsets=SUBSETS,
        store=shard_store(),
        model=params.targets.build(classes=len(inputs.dataset.classes)),
        tolerance=params.targets.tolerance,
        block_size=params.subsets.block,
    )

    def train(missing: Sequence[BlockJob]) -> None:
        # Imported here: without a block to train, the stage needs neither Prefect nor a server.
        if os.environ.get("MODELPRED_RUNNER") == local_training.PLAIN:
            train_blocks = local_training.train_blocks
        else:
            from flows.runners import train_blocks  # noqa: PLC0415

        train_blocks(missing, finished=len(jobs) - len(missing))

    # The manifest has the shards' hashes.
    with written(TARGETS, but="*.parquet", made_from=(DATASET, SUBSETS)) as folder:
        collected = collect_shards(jobs, folder, train=train)
        found = outcomes(collected.counts, inputs.redrawn)
        metrics = {
            "subsets": collected.subsets,
            "parameters": collected.parameters,
            "not_converged": collected.not_converged,
            "degenerate": collected.degenerate,
            "redrawn": int(found["redrawn"].sum()),
            "by_design": {
                f"{row.pop('role')}-{row.pop('design')}": row for row in found.iter_rows(named=True)
            },
        }
        write_json(metrics, folder / "metrics.json")
    if message := lost(found):
        sys.stdout.write(f"targets: {message}{os.linesep}")


if __name__ == "__main__":
    run_stage("targets", main)
