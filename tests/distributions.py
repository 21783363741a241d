"""Builds the sdist and the wheel into dist/, and installs each in a clean environment that it then tries.

    make dist

One environment is made, with the library's dependencies and no extra. The wheel, the sdist built with a
compiler and the sdist built without one are installed in it, one after another; each must hold all
files, load the kernels that it should have, train the same models and name a missing extra.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"

# Runs in the clean environment; the argument says which kernels there should be.
TRIAL = """
import subprocess, sys
from importlib.resources import files
import numpy as np, torch
from modelpred import ModelPred
from modelpred.targets import target_model, train_targets
from modelpred.targets.compiled import kernels

rows = np.random.default_rng(0).normal(size=(60, 4))
labels = (rows[:, 0] + 0.3 * rows[:, 1] > 0).astype(int)
weights = np.random.default_rng(1).integers(0, 3, size=(20, 60))
trained = train_targets(target_model("logistic"), rows, labels, weights)
print(f"{float(trained.parameters.sum()):.6f}", int(trained.converged.sum()))
mp = ModelPred(target="logistic", subsets=100).fit(rows, labels)
assert "parameters" in str(mp.without([3]).compare())

assert (kernels.library() is not None) == (sys.argv[1] == "compiled"), kernels.library()
for name in ("py.typed", "report/page.css", "dataset/builtin", "targets/compiled/newton.c"):
    found = files("modelpred").joinpath(name)
    assert found.is_file() or found.is_dir(), name
listed = subprocess.run(
    [sys.executable, "-m", "modelpred.cli", "registry", "list"], capture_output=True, text=True
)
assert listed.returncode == 1, listed
assert "pip install 'modelpred[pipeline]'" in listed.stderr, listed.stderr
assert len(listed.stderr.splitlines()) == 1, listed.stderr
"""


def environment(place: Path) -> Path:
    """The interpreter of a new virtual environment."""
    venv.create(place, with_pip=True)
    return place / ("Scripts" if os.name == "nt" else "bin") / "python"


def built(folder: Path, place: Path) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it."""
    shutil.rmtree(folder, ignore_errors=True)
    python = environment(place / "builder")
    run(python, "-m", "pip", "install", "--quiet", "build")
    run(python, "-m", "build", "--outdir", folder, ROOT)
    [sdist], [wheel] = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def check_files(sdist: Path, wheel: Path) -> None:
    """Every file of the two packages that git knows is in both; the wheel is for any Python."""
    command = ["git", "ls-files", "modelpred", "flows"]
    known = set(
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    )
    with tarfile.open(sdist) as archive:
        missing = known - {name.partition("/")[2] for name in archive.getnames()}
    assert not missing, f"{sdist.name} lacks {sorted(missing)}"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert not known - names, f"{wheel.name} lacks {sorted(known - names)}"
    assert re.search(r"-py3-none-(?!any)\w+\.whl$", wheel.name), wheel.name
    assert any(name.endswith("kernels_plain.so") for name in names), "no kernel was compiled"


def run(*command: object, **variables: str) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=tempfile.gettempdir(),  # where no modelpred can be imported from the current folder
        env={
            **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))[:200]}\n{done.stdout}\n{done.stderr}")
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "dist")
    folder = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as place:
        sdist, wheel = built(folder, Path(place))
        check_files(sdist, wheel)
        python = environment(Path(place) / "clean")
        install = (python, "-m", "pip", "install", "--quiet", "--constraint", CONSTRAINTS)
        again = ("--no-deps", "--force-reinstall", "--no-cache-dir")
        no_compiler = {"CC": "false"}
        tried = {}
        for name, kernels, arguments, variables in (
            ("the wheel", "compiled", (wheel,), no_compiler),
            ("the sdist with a compiler", "compiled", (*again, sdist), {}),
            ("the sdist without one", "none", (*again, sdist), no_compiler),
        ):
            run(*install, *arguments, **variables)
            tried[name] = run(python, "-c", TRIAL, kernels)
            print(f"{name}: {tried[name]}")
        assert len(set(tried.values())) == 1, "they do not train the same models"
    print(f"{sdist.name} and {wheel.name} are in {folder}")


if __name__ == "__main__":
    main()
