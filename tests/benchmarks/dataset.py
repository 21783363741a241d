"""Memory and time of taking 20,000 rows of a Parquet file of 5 million rows and 50 columns.

    python tests/benchmarks/dataset.py [--rows 5000000] [--columns 50]

The file (2 GB) is written to a temporary folder in pieces and deleted afterwards. Peak memory is that
of a process of its own, which does what the dataset stage does: choose, read, encode, scale.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PIECE = 250_000
TAKEN = 20_000
PROGRAM = """
import sys, time, resource
from modelpred.dataset import DatasetConfig, prepare
began = time.perf_counter()
data = prepare(DatasetConfig(source=sys.argv[1], label="label", max_points={taken}))
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(f"{{len(data.row_ids) + len(data.test_row_ids)}} {{seconds:.1f}} {{peak:.2f}}")
"""


def write(path: Path, *, rows: int, columns: int) -> None:
    """A table of numbers, a category with missing cells, and a label, a piece at a time."""
    generator = np.random.default_rng(0)
    writer = None
    for start in range(0, rows, PIECE):
        count = min(PIECE, rows - start)
        numbers = {f"x{at}": generator.normal(size=count) for at in range(columns - 2)}
        words = pa.array(
            np.array(["a", "b", "c", None], dtype=object)[generator.integers(0, 4, count)]
        )
        label = pa.array(np.where(generator.random(count) < 0.2, "yes", "no"))
        table = pa.table({**numbers, "word": words, "label": label})
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer:
        writer.close()


def main() -> None:
    """Writes the file, takes the rows in a process of its own, prints what it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--columns", type=int, default=50)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "large.parquet"
        began = time.perf_counter()
        write(path, rows=asked.rows, columns=asked.columns)
        size = path.stat().st_size / 1e9
        print(f"written: {size:.2f} GB in {time.perf_counter() - began:.0f} s", flush=True)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(taken=TAKEN), str(path)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        taken, seconds, peak = done.stdout.split()
        child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        print(
            f"| {asked.rows:,} x {asked.columns} | {size:.2f} GB | {int(taken):,} | {seconds} s | "
            f"{max(float(peak), child):.2f} GiB |"
        )


if __name__ == "__main__":
    main()
