"""What `modelpred check` estimates, beside what the stages then take and how much disk they use.

    python -m tests.benchmarks.check [--tables spam adult digits] [--repeats 1] [--adult FILE]

A copy of the project for each table, with the params that ship. The trial runs first, then `dvc repro
predictor`; a stage's seconds are those between its last file and that of the stage before, so that
hashing and Prefect are in them. Disk is all of artifacts/, the store of shards and DVC's cache.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from modelpred.check.estimate import estimate, usual_epochs, usual_subsets
from modelpred.check.trial import speeds, start_seconds
from modelpred.dataset import DatasetConfig, prepare
from modelpred.targets.devices import parse_devices
from tests.benchmarks.results import write_part
from tests.projects import small_project

ROOT = Path(__file__).parents[2]
TOTAL = 6500
LAST = {
    "dataset": "dataset.json",
    "subsets": "subsets.json",
    "targets": "metrics.json",
    "predictor": "metrics.json",
}


def run(place: Path) -> tuple[dict[str, float], float]:
    """Seconds of each stage, and bytes on disk."""
    began = time.time()
    environment = os.environ | {"PYTHONPATH": str(place)}
    command = [sys.executable, "-m", "dvc", "repro", "predictor"]
    subprocess.run(command, cwd=place, env=environment, check=True, stdout=subprocess.DEVNULL)
    seconds: dict[str, float] = {}
    for stage, last in LAST.items():
        ended = (place / "artifacts" / stage / last).stat().st_mtime
        seconds[stage], began = ended - began, ended
    kept = [place / "artifacts", place / ".modelpred", place / ".dvc" / "cache"]
    files = [path for folder in kept for path in folder.rglob("*") if path.is_file()]
    return seconds, sum(path.stat().st_size for path in files if "prefect" not in str(path))


def compared(name: str, dataset: dict[str, object]) -> list[str]:
    """A row of the table for each stage."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if name == "adult":
            shutil.copy(str(dataset["source"]), place / "adult.parquet")
        asked = usual_subsets(TOTAL)
        began = time.perf_counter()
        read = prepare(DatasetConfig.model_validate(dataset))
        measured = speeds(read, asked, start=start_seconds())
        tried = time.perf_counter() - began
        cores = len(parse_devices("cpu"))
        told = estimate(measured, asked, cores=cores, epochs=usual_epochs())
        if name == "adult":
            dataset = {**dataset, "source": "adult.parquet", "watch": "adult.parquet"}
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        params["dataset"] |= dataset
        seconds, disk = run(small_project(place, params))
    rows = [
        f"| {name} | {stage} | {getattr(told, stage):.0f} s | {taken:.0f} s | "
        f"{taken / getattr(told, stage):.2f} |"
        for stage, taken in seconds.items()
    ]
    whole = sum(seconds.values()) / sum(getattr(told, stage) for stage in LAST)
    expected = sum(getattr(told, stage) for stage in LAST)
    rows.append(
        f"| {name} | all four | {expected:.0f} s | {sum(seconds.values()):.0f} s | {whole:.2f} |"
    )
    rows.append(
        f"| {name} | disk | {told.disk / 1e6:.1f} MB | {disk / 1e6:.1f} MB | {disk / told.disk:.2f} |"
    )
    sys.stdout.write("\n".join([*rows, f"(trial: {tried:.1f} s)", ""]))
    sys.stdout.flush()
    return rows


def main() -> None:
    """Compares table after table and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", nargs="+", default=["spam", "adult", "digits"])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--adult", default=str(ROOT.parent / "shared" / "data" / "adult.parquet"))
    asked = parser.parse_args()
    tables: dict[str, dict[str, object]] = {
        "adult": {"source": asked.adult, "label": "income", "test": "split"}
    }
    rows = [
        row
        for _ in range(asked.repeats)
        for name in asked.tables
        for row in compared(name, tables.get(name, {"source": name}))
    ]
    cores = len(parse_devices("cpu"))
    command = (
        f"`python -m tests.benchmarks.check`; {cores} cores, load average "
        f"{os.getloadavg()[0]:.0f} at the end, {asked.repeats} run(s) a table, 6,500 subsets."
    )
    head = [
        command,
        "",
        "| table | stage | estimate | taken | taken / estimate |",
        "|---|---|---|---|---|",
    ]
    write_part("## Own tables", "What `modelpred check` estimates", [*head, *rows])


if __name__ == "__main__":
    main()
