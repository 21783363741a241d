"""How fast the predictor answers, beside a Newton step, and how much memory its fit takes."""

import hashlib
import subprocess
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path

import torch

from modelpred.predictor import PredictorConfig, Refined, fit_predictor
from modelpred.refits import LinearDatamodel, Refit, rivals
from modelpred.refits.timing import median_seconds
from modelpred.subsets import Subsets
from modelpred.targets import TrainedTargets, spill
from modelpred.targets.parquet import ShardMetadata
from modelpred.targets.shards import ManifestEntry, read_bank, write_manifest, write_shard
from tests.benchmarks.predictor_banks import (
    Problem,
    machine,
    problem,
    table,
    write_part,
)

MEMORY = (100_000, 400_000, 800_000)
SHARD = 10_000  # targets
TIMED = (
    ("iris", "logistic"), ("breast_cancer", "logistic"), ("spam", "logistic"), ("spam", "svm"),
    ("wine", "softmax"), ("digits", "softmax"),
)  # fmt: skip
ASKED = 500
REFINEMENTS = (0.25, 0.5, 1)


def times(chosen: list[str]) -> None:
    """Time of a batched answer: it follows from sizes alone, so a short fit will do."""
    rows: list[list[str]] = []
    for source, family in TIMED:
        if chosen and f"{source}/{family}" not in chosen:
            continue
        task = problem(source, family, fit={"uniform": 300}, test={"uniform": ASKED})
        fit = task.fit.usable()
        predictor = fit_predictor(PredictorConfig(epochs=1), task.model, task.points, *fit)
        refits: list[Refit] = [
            rivals(task.model, task.points, *fit)["newton_step"],
            predictor,
            *(Refined(predictor, steps) for steps in REFINEMENTS),
        ]
        for refit in refits:
            refit(task.test.weights)
        seconds = [median_seconds(partial(refit, task.test.weights), timings=5) for refit in refits]
        rows.append([task.name, *(f"{1e6 * each / ASKED:.0f}" for each in seconds)])
        print(" | ".join(rows[-1]), flush=True)
    header = [
        "pool", "Newton step", "predictor", *(f"refine {steps}" for steps in REFINEMENTS)
    ]  # fmt: skip
    told = f"{machine()}; µs a subset, {ASKED} at once, the median of five."
    write_part("Time of an answer", [told, "", *table(header, rows)])


def peak_memory(targets: int) -> None:
    """Print what reading so many random targets and fitting to them adds to the peak memory, in MiB.

    Memory that cannot be given back (RssAnon of Linux), not the pages of files that are mapped.
    """
    task = problem("spam", "logistic", fit={"uniform": 100}, test={"uniform": 1})
    with tempfile.TemporaryDirectory() as place:
        write_shards(Path(place), task, targets)
        began, peak, ended = anonymous_mebibytes(), [0.0], threading.Event()

        def watch() -> None:
            while not ended.wait(0.01):
                peak[0] = max(peak[0], anonymous_mebibytes())

        watcher = threading.Thread(target=watch)
        watcher.start()
        bank = read_bank(Path(place))
        read = peak[0] - began
        fit = bank.usable(role="fit")
        fit_predictor(PredictorConfig(epochs=1), task.model, task.points, *fit)
        LinearDatamodel.fit(*fit)
        ended.set()
        watcher.join()
    names = sum(map(sys.getsizeof, bank.ids)) / 2**20
    print(read, peak[0] - began, names)


def anonymous_mebibytes() -> float:
    """Memory of this process that is no file's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def write_shards(folder: Path, task: Problem, targets: int) -> None:
    """Shards of random subsets that say of each what training gave for another."""
    generator = torch.Generator().manual_seed(0)
    entries: list[ManifestEntry] = []
    for first in range(0, targets, SHARD):
        rows = min(SHARD, targets - first)
        names = tuple(f"fit-uniform-{first + row:07d}" for row in range(rows))
        weights = (torch.rand(rows, 300, generator=generator) < 0.5).to(torch.uint8)
        block = Subsets(names, ("fit",) * rows, ("uniform",) * rows, weights)
        zeros = torch.zeros(rows, dtype=torch.float64)
        trained = TrainedTargets(
            parameters=task.fit.parameters[torch.arange(rows) % 100],
            objective=zeros, gradient_norm=zeros, iterations=zeros.long(),
            converged=zeros == 0, degenerate=zeros != 0,
        )  # fmt: skip
        fingerprint = hashlib.sha256(str(first).encode()).hexdigest()
        metadata = ShardMetadata(
            fingerprint=fingerprint, dataset="spam", model=task.model.name,
            settings=task.model.settings, tolerance=1e-6,
        )  # fmt: skip
        path = folder / f"{first}.parquet"
        sha256 = write_shard(path, block=block, trained=trained, metadata=metadata)
        entries.append(
            ManifestEntry(
                file=path.name,
                fingerprint=fingerprint,
                sha256=sha256,
                size=path.stat().st_size,
                rows=rows,
                designs={"uniform": rows},
            )
        )
    write_manifest(folder, entries)


def memory(chosen: list[str]) -> None:
    """Peak memory for each number of targets, each in a process of its own."""
    rows: list[list[str]] = []
    for targets in MEMORY:
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.predictor_speed", str(targets)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        read, added, names = map(float, done.stdout.split())
        stored = targets * (300 + 8 * 58) / 2**20
        rows.append(
            [f"{targets:,}", f"{stored:.0f}", f"{read:.0f}", f"{added:.0f}", f"{names:.0f}"]
        )
        print(" | ".join(rows[-1]), flush=True)
    told = (
        "spam, logistic, from shards on disk: what reading the bank, and reading it, one epoch of the "
        "fit and the linear datamodel add to the peak memory of a process, MiB, pages of mapped files "
        f"not counted. Tensors of more than {spill.LARGEST >> 20} MiB lie in files."
    )
    header = ["targets", "weights and parameters", "read", "read and fit", "of it names of subsets"]
    write_part("Memory", [told, "", *table(header, rows)])


if __name__ == "__main__":
    peak_memory(int(sys.argv[1]))
