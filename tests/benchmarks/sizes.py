"""What the library and each extra take on disk, in a clean environment with the versions of constraints.txt."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.figures import Benchmark, Figure, number
from tests.distributions import CONSTRAINTS, ROOT, environment, run

# In the order of installation: the size of an extra is what it adds to those before it.
EXTRAS = ("", "openml", "page", "s3", "pipeline", "dask", "ray")


def megabytes(folder: Path) -> float:
    """The disk space of a folder's files, each of which counts once."""
    inodes = {
        (found.st_dev, found.st_ino): found.st_blocks * 512
        for parent, _, names in os.walk(folder)
        for found in (os.lstat(Path(parent) / name) for name in names)
    }
    return sum(inodes.values()) / 1e6


def measure(quick: bool) -> Iterable[Figure]:
    """The size of the library, then what each extra adds; a quick run installs the package alone."""
    with tempfile.TemporaryDirectory() as place:
        python = environment(Path(place) / "environment")
        before = megabytes(Path(place))
        for extra in EXTRAS[:1] if quick else EXTRAS:
            what = f"{ROOT}[{extra}]" if extra else str(ROOT)
            alone = ["--no-deps"] if quick else ["--constraint", str(CONSTRAINTS)]
            run(python, "-m", "pip", "install", "--quiet", *alone, what)
            after = megabytes(Path(place))
            yield number(extra or "the library", after - before, "MB")
            before = after


BENCHMARK = Benchmark("disk space of the library and of what each extra adds", 8, measure)
