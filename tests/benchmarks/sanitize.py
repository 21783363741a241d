"""Random shapes through the kernels, built with the address and undefined-behaviour sanitizers.

    make sanitize

Builds into a folder for temporary files, and ends with an error at the first fault.
"""

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[2] / "modelpred" / "targets" / "compiled"
FLAGS = ("-O1", "-g", "-fPIC", "-shared", "-fsanitize=address,undefined")
STOP = ("-fno-sanitize-recover=all", "-fno-math-errno")
KINDS = {"plain": (), "avx2": ("-mavx2", "-mfma")}


def build(kind: str, path: Path) -> None:
    sources = [str(source) for source in sorted(FOLDER.glob("*.c"))]
    compiler = os.environ.get("CC", "gcc")
    subprocess.run(
        [compiler, *FLAGS, *STOP, *KINDS[kind], *sources, "-lm", "-o", str(path)], check=True
    )


def runtime(name: str) -> str:
    compiler = os.environ.get("CC", "gcc")
    found = subprocess.run(
        [compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True
    )
    return found.stdout.strip()


def exercise(path: Path, problems: int) -> None:
    """Train random problems; each array that C sees is allocated for itself, as the sanitizer needs."""
    import torch  # noqa: PLC0415 - only the child that has the sanitizer's runtime

    from modelpred.targets import target_model, train_targets  # noqa: PLC0415
    from modelpred.targets.compiled import kernels  # noqa: PLC0415
    from modelpred.targets.compiled.slopes import slope_changes  # noqa: PLC0415

    torch.set_num_threads(1)
    library = ctypes.CDLL(str(path))
    kernels.library = lambda: library  # type: ignore[assignment]
    for seed in range(problems):
        generator = np.random.default_rng(seed)
        points, features = int(generator.integers(6, 70)), int(generator.integers(1, 60))
        classes = int(generator.integers(2, 12))
        family = ("logistic", "svm", "ridge", "softmax", "mlp")[seed % 5]
        classes = {"logistic": 2, "svm": 2, "ridge": 0}.get(family, min(classes, points))
        table = generator.normal(size=(points, features)) * 10.0 ** generator.integers(-3, 4)
        labels = generator.integers(0, max(classes, 2), points)
        labels[:classes] = np.arange(classes)
        settings = {"steps": 4, "hidden": int(generator.integers(1, 20))}
        model = target_model(family, **(settings if family == "mlp" else {}))
        weights = generator.integers(0, 3, size=(5, points))
        own = labels.astype(float) if family == "ridge" else labels
        train_targets(model, table, own, weights, classes=classes or None)
        scores = torch.from_numpy(generator.normal(size=(max(classes, 1), points))).float()
        changes = slope_changes("softmax", scores, 0.3, beyond=scores / 10)
        assert changes is not None
        moved = torch.zeros(max(classes, 1), 5, points, dtype=torch.bfloat16)
        changes(moved, torch.from_numpy(weights).bfloat16())
        answer(generator, points, features)
    print(f"{problems} problems, no fault")


def answer(generator: np.random.Generator, points: int, features: int) -> None:
    """Sums over the rows of random subsets, as Newton directions need them."""
    import torch  # noqa: PLC0415 - only the child that has the sanitizer's runtime

    from modelpred.targets.compiled import answers  # noqa: PLC0415

    def normal(*shape: int) -> torch.Tensor:
        return torch.from_numpy(generator.normal(size=shape))

    subsets, share = int(generator.integers(1, 9)), float(generator.choice([0.05, 0.5, 0.95]))
    weights = torch.from_numpy(generator.uniform(size=(subsets, points)) < share).to(torch.uint8)
    labels = torch.from_numpy(generator.integers(0, 2, points))
    loss = str(generator.choice(answers.LOSSES))
    rows = answers.compiled_rows(loss, normal(points, features), normal(points).abs(), labels)
    assert rows is not None
    anchor = rows.anchored(
        scores=normal(points), slopes=normal(points), directions=normal(points, features + 1)
    )
    anchor.sums(weights)
    anchor.gradients(weights, normal(subsets, features).float())
    answers.totals_of(weights, labels, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--library", type=Path)
    chosen = parser.parse_args()
    if chosen.library:
        exercise(chosen.library, chosen.problems)
        return
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            path = Path(folder) / f"{kind}.so"
            build(kind, path)
            preload = f"{runtime('libasan.so')} {runtime('libubsan.so')}"
            # Python itself frees little when it ends.
            own = {"LD_PRELOAD": preload, "ASAN_OPTIONS": "detect_leaks=0"}
            command = [sys.executable, "-m", "tests.benchmarks.sanitize", "--library", str(path)]
            subprocess.run(
                [*command, "--problems", str(chosen.problems)],
                check=True,
                env={**os.environ, **own},
            )


if __name__ == "__main__":
    main()
