"""Target models against scikit-learn's fastest solvers and a per-model torch loop.

    python -m tests.benchmarks.targets                    all tables, into RESULTS.md (about 15 min)
    python -m tests.benchmarks.targets speed svm mlp      the rows of the speed table with these words
    python -m tests.benchmarks.targets scale 100,000      the rows of the scale table
    python -m tests.benchmarks.targets exact ridge        the rows of the table of exactness

Rows that are measured again replace those of their name in RESULTS.md.

Both sides use every core (scikit-learn: joblib processes with one BLAS thread each, warmed up) and
alternate in one run; a ratio is the per-subset time of the repeat's fastest rival over ours, and the
table gives the median, lowest and highest of the repeats. Subsets have sizes uniform in [N/10, N] and all
classes; scikit-learn is handed the chosen rows, not weights of zero. Both sides go to the same
gradient norm: ours always ends near 1e-10 (of the summed objective, largest absolute entry), so the
rivals' tolerances ask for 1e-9; both sides' norms are shown. The last column is the ratio when the
rival may stop at 1e-6, which ours may not.
"""

import argparse
import contextlib
import ctypes
import importlib.util
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import sklearn
import torch
from joblib import Parallel, delayed
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import LinearSVC
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from modelpred.targets import TargetModel, points_of, target_model, train_targets
from modelpred.targets.compiled.kernels import library
from tests.benchmarks.results import RESULTS, write_section

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
SPAM = ROOT / "modelpred" / "dataset" / "builtin" / "spam.parquet"
REPEATS = 5
TIGHT, LOOSE = 1e-9, 1e-6  # gradient norms asked of the rivals
CLOSE = 1.5  # rivals this near to the fastest in a trial all run; each repeat takes the fastest
Pool = tuple[np.ndarray, np.ndarray]


def standardised(features: np.ndarray) -> np.ndarray:
    spread = features.std(0)
    return (features - features.mean(0)) / np.where(spread > 0, spread, 1)


def largest_row_norm(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=1).max()


def iris() -> Pool:
    features, labels = load_iris(return_X_y=True)
    chosen = np.random.default_rng(33).permutation(np.flatnonzero(labels < 2))[:67]
    return largest_row_norm(features[chosen]), labels[chosen]


def spam(scaling: Callable[[np.ndarray], np.ndarray]) -> Pool:
    table = pl.read_parquet(SPAM)
    chosen = np.random.default_rng(0).permutation(len(table))[:300]
    features = table.drop("is_spam").to_numpy()[chosen]
    return scaling(features), table["is_spam"].to_numpy().astype(int)[chosen]


def higgs(scaling: Callable[[np.ndarray], np.ndarray]) -> Pool:
    table = pl.read_parquet(SHARED / "higgs_atlas.parquet")[:1100]
    names = [name for name in table.columns if name[:3] in ("DER", "PRI")]
    features = table.select(names).to_numpy().copy()
    for column in features.T:
        values, times = np.unique(column[column != -999], return_counts=True)
        column[column == -999] = values[times.argmax()]
    features = np.delete(features, [15, 18, 20, 25, 28], axis=1)
    labels = (table["Label"] == "s").to_numpy().astype(int)
    chosen = np.random.RandomState(32).permutation(1100)[:300]
    return scaling(features[chosen]), labels[chosen]


def mnist(scaling: Callable[[np.ndarray], np.ndarray]) -> Pool:
    features, labels = mnist_features()
    return scaling(features), labels


@cache
def mnist_features() -> Pool:
    """128 features before the ReLU of a small network, after one short epoch on other images."""
    table = pl.read_parquet(SHARED / "mnist.parquet")[:3060]
    images = np.array(table["image"].to_list(), dtype=np.float32) / 255
    images = torch.tensor(images).reshape(-1, 1, 28, 28)
    labels = torch.tensor(table["label"].to_numpy().astype(np.int64))
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        trunk = nn.Sequential(
            *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU()),
            *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(9216, 128)),
        )
        head = nn.Sequential(nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam([*trunk.parameters(), *head.parameters()], 1e-3)
    for first in range(500, 3060, 64):
        part = slice(first, first + 64)
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(trunk(images[part])), labels[part]).backward()
        optimizer.step()
    with torch.no_grad():
        features = trunk(images[:500]).double().numpy()
    return features, labels[:500].numpy()


def digits() -> Pool:
    features, labels = load_digits(return_X_y=True)
    return standardised(features[:500]), labels[:500]


def draw(labels: np.ndarray, subsets: int) -> np.ndarray:
    generator = np.random.default_rng(1)
    points, classes = len(labels), len(np.unique(labels))
    weights = np.zeros((subsets, points), dtype=np.uint8)
    for row in weights:
        while len(np.unique(labels[row > 0])) < classes:
            row[:] = 0
            size = int(generator.integers(points // 10, points + 1))
            row[generator.permutation(points)[:size]] = 1
    return weights


# The rivals: functions of (features, labels) of one subset that return its parameters.


def logistic_rival(
    solver: str, features: np.ndarray, labels: np.ndarray, *, tolerance: float
) -> np.ndarray:
    # newton and lbfgs stop on the gradient of the mean loss.
    model = LogisticRegression(solver=solver, tol=tolerance / len(labels), max_iter=100_000)
    return flat(model.fit(features, labels))


def svm_rival(
    dual: bool, features: np.ndarray, labels: np.ndarray, *, tolerance: float
) -> np.ndarray:
    # Its tolerance is relative to the gradient at zero, which is some tens here.
    model = LinearSVC(dual=dual, tol=tolerance / 10, max_iter=100_000)
    return flat(model.fit(features, labels))


def ridge_rival(
    solver: str, features: np.ndarray, labels: np.ndarray, *, tolerance: float
) -> np.ndarray:
    model = Ridge(alpha=1.0, solver=solver, tol=tolerance * 1e-3)
    return flat(model.fit(features, labels.astype(float)))


def flat(model: Any) -> np.ndarray:
    coefficients = np.atleast_2d(model.coef_)
    return np.concatenate([coefficients, np.reshape(model.intercept_, (-1, 1))], 1).ravel()


def network_rival(
    precision: str,
    features: np.ndarray,
    labels: np.ndarray,
    *,
    tolerance: float,  # fixed steps
) -> np.ndarray:
    del tolerance
    dtype = getattr(torch, precision)
    inputs, targets = torch.tensor(features, dtype=dtype), torch.tensor(labels)
    network = nn.Sequential(
        nn.Linear(64, 16, dtype=dtype), nn.Tanh(), nn.Linear(16, 10, dtype=dtype)
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5, momentum=0.9, weight_decay=1e-3)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), targets).backward()
        optimizer.step()
    return np.zeros(0)


def rival_loop(
    rival: Callable[..., np.ndarray], pool: Pool, weights: np.ndarray, tolerance: float
) -> list[Any]:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    features, labels = pool
    return [rival(features[row > 0], labels[row > 0], tolerance=tolerance) for row in weights]


@dataclass(frozen=True)
class Work:
    """One row of the table."""

    name: str
    model: TargetModel
    pool: Callable[[], Pool]
    rivals: dict[str, Callable[..., np.ndarray]]
    goal: int
    subsets: int
    rival_subsets: int


def works() -> list[Work]:
    second = {
        name: partial(logistic_rival, name) for name in ("newton-cholesky", "newton-cg", "lbfgs")
    }
    many = {name: partial(logistic_rival, name) for name in ("newton-cg", "lbfgs")}
    svms = {"primal": partial(svm_rival, False), "dual": partial(svm_rival, True)}
    ridges = {name: partial(ridge_rival, name) for name in ("cholesky", "svd", "lsqr")}
    loops = {name: partial(network_rival, name) for name in ("float64", "float32")}
    logistic, svm = target_model("logistic"), target_model("svm")
    standard, row = standardised, largest_row_norm
    found = [Work("iris 67 x 4 logistic", logistic, iris, second, 100, 20000, 400)]
    for name, scaling in (("standardised", standard), ("largest row norm", row)):
        pool = partial(spam, scaling)
        found.append(Work(f"spam 300 x 57 logistic, {name}", logistic, pool, second, 30, 4000, 200))
    if (SHARED / "higgs_atlas.parquet").exists():
        for name, scaling in (("standardised", standard), ("largest row norm", row)):
            pool = partial(higgs, scaling)
            found.append(
                Work(f"higgs 300 x 25 logistic, {name}", logistic, pool, second, 30, 4000, 200)
            )
    for name, scaling in (("standardised", standard), ("largest row norm", row)):
        found.append(Work(f"spam svm, {name}", svm, partial(spam, scaling), svms, 50, 2000, 200))
    if (SHARED / "mnist.parquet").exists():
        softmax = target_model("softmax")
        for name, scaling in (("unscaled", np.asarray), ("standardised", standard)):
            pool = partial(mnist, scaling)
            found.append(Work(f"MNIST 500 x 128 softmax, {name}", softmax, pool, many, 15, 76, 8))
    for name, scaling in (("standardised", standard), ("largest row norm", row)):
        pool = partial(spam, scaling)
        found.append(
            Work(f"spam ridge, {name}", target_model("ridge"), pool, ridges, 100, 4000, 400)
        )
    network = target_model("mlp", hidden=16, steps=150)
    found.append(
        Work("digits 500 x 64 mlp, 16 hidden, 150 steps", network, digits, loops, 10, 256, 16)
    )
    return found


def compared(work: Work, parallel: Parallel, cores: int, repeats: int) -> dict[str, Any]:
    pool = work.pool()
    features, labels = pool
    target = labels.astype(float) if work.model.regression else labels
    weights = draw(labels, work.subsets)

    def ours() -> float:
        begin = time.perf_counter()
        train_targets(work.model, features, target, weights)
        return (time.perf_counter() - begin) / len(weights)

    def theirs(rival: Callable[..., np.ndarray], count: int, tolerance: float = TIGHT) -> float:
        parts = np.array_split(weights[:count], 4 * cores)
        begin = time.perf_counter()
        parallel(delayed(rival_loop)(rival, pool, part, tolerance) for part in parts)
        return (time.perf_counter() - begin) / count

    small = max(4, work.rival_subsets // 8)
    trial = {
        name: min(theirs(rival, small) for _ in range(2)) for name, rival in work.rivals.items()
    }
    close = [name for name in trial if trial[name] <= CLOSE * min(trial.values())]
    ours()
    times: list[tuple[float, float]] = []
    for _ in range(repeats):
        own = ours()
        each = {name: theirs(work.rivals[name], work.rival_subsets) for name in close}
        trial.update({name: min(trial[name], each[name]) for name in close})
        times.append((own, min(each.values())))
    fastest = min(close, key=trial.__getitem__)
    ratios = sorted(their / own for own, their in times)
    own = float(np.median([own for own, _ in times]))
    loose = min(theirs(work.rivals[name], work.rival_subsets, LOOSE) for name in close)
    flops, wide = operations(work, features, target, weights)
    peak = peak_rate(torch.float32)
    trained = train_targets(work.model, features, target, weights)
    print(work.name, [round(ratio, 1) for ratio in ratios], file=sys.stderr, flush=True)
    return {
        "work": work.name,
        "goal": work.goal,
        "ratio": f"**{np.median(ratios):.0f}** ({ratios[0]:.0f} to {ratios[-1]:.0f}; {repeats})",
        "ours us": f"{own * 1e6:.1f}",
        "rival us": f"{np.median([their for _, their in times]) * 1e6:.0f}",
        "fastest rival": fastest,
        "gradient, ours": f"{trained.gradient_norm.max():.0e}",
        "gradient, rival": rival_norm(work, fastest, pool, target, weights),
        "converged": f"{int(trained.converged.sum())}/{len(weights)}",
        "rival to 1e-6": f"{loose / own:.0f}",
        "load": f"{os.getloadavg()[0]:.1f}",
        "products": f"{flops / own / peak:.0%} ({wide:.0%} in float64)",
    }


def rival_norm(
    work: Work, fastest: str, pool: Pool, target: np.ndarray, weights: np.ndarray
) -> str:
    if work.model.name == "mlp":
        return "fixed steps"
    some = weights[:8]
    parameters = torch.tensor(np.stack(rival_loop(work.rivals[fastest], pool, some, TIGHT)))
    classes = 0 if work.model.regression else int(pool[1].max()) + 1
    points = points_of(pool[0], target, classes)
    gradient = work.model.gradient(parameters, torch.tensor(some).double(), points)
    torch.set_num_threads(os.cpu_count() or 1)
    return f"{float(gradient.abs().amax(1).median()):.0e}"


def operations(
    work: Work, features: np.ndarray, target: np.ndarray, weights: np.ndarray
) -> tuple[float, float]:
    """Operations in matrix products a subset, and the share of them in float64."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    some = weights[: max(64, min(512, len(weights)))]
    counted = np.zeros(2)  # of float32 and of float64, by the kernels in this thread
    count = partial(library().modelpred_operations, ctypes.c_void_p(counted.ctypes.data))
    count()
    with Products() as tally:
        train_targets(work.model, features, target, some)
    torch.set_num_threads(threads)
    count()
    total = tally.total + counted.sum()
    return total / len(some), (tally.wide + counted[1]) / total


class Products(TorchDispatchMode):
    """Counts operations of matrix products, and those of them in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.total = self.wide = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.bmm, torch.ops.aten.baddbmm):
            left, right = args[-2:]
            spent = 2 * left.numel() * right.shape[-1]
            self.total += spent
            self.wide += spent if left.dtype == torch.float64 else 0
        return func(*args, **(kwargs or {}))


def peak_rate(dtype: torch.dtype) -> float:
    """Best of ten square products on all cores, operations a second."""
    left = torch.randn(1536, 1536, dtype=dtype)
    best = 0.0
    for _ in range(10):
        begin = time.perf_counter()
        _ = left @ left
        best = max(best, 2 * 1536**3 / (time.perf_counter() - begin))
    return best


def scale(kind: str) -> None:
    """Train at scale in this process and print seconds and peak memory as JSON."""
    generator = np.random.default_rng(0)
    if kind == "wide":
        features = generator.normal(size=(50_000, 100))
        labels = (features[:, 0] + generator.normal(size=50_000) > 0).astype(int)
        weights = (generator.random((1_000, 50_000), dtype=np.float32) < 0.5).astype(np.uint8)
    else:
        features, labels = spam(standardised)
        weights = np.zeros((int(kind), 300), dtype=np.uint8)
        for first in range(0, len(weights), 1000):
            part = weights[first : first + 1000]
            share = generator.uniform(0.1, 1, (len(part), 1))
            part[:] = generator.random(part.shape) < share
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    begin = time.perf_counter()
    trained = train_targets(target_model("logistic"), features, labels, weights)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    good = int((trained.converged | trained.degenerate).sum())
    print(json.dumps({"seconds": seconds, "before": before, "peak": peak, "good": good}))


def at_scale() -> dict[str, Callable[[], dict[str, str]]]:
    """Each row of the scale table, by its name."""
    rows: dict[str, Callable[[], dict[str, str]]] = {}
    for kind, name, count in (
        ("1000", "spam 300 x 57, 1,000 subsets", 1_000),
        ("10000", "spam 300 x 57, 10,000 subsets", 10_000),
        ("100000", "spam 300 x 57, 100,000 subsets", 100_000),
        ("wide", "50,000 x 100, 1,000 subsets", 1_000),
    ):
        rows[name] = partial(in_memory, kind, name, count)
    for count in (10_000, 100_000):
        name = f"spam 300 x 57, {count:,} subsets to shards, stage targets"
        rows[name] = partial(to_shards, name, count)
    return rows


def in_memory(kind: str, name: str, count: int) -> dict[str, str]:
    run = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.targets", "--process", kind],
        capture_output=True,
        text=True,
        check=True,
    )
    values = json.loads(run.stdout)
    return {
        "work": name,
        "seconds": f"{values['seconds']:.1f}",
        "us a subset": f"{values['seconds'] / count * 1e6:.0f}",
        "peak GiB": f"{values['peak']:.2f} (imports and data: {values['before']:.2f})",
        "converged or degenerate": f"{values['good']}/{count}",
    }


def to_shards(name: str, count: int) -> dict[str, str]:
    """The real stages in an empty folder; memory of the stage `targets` with its workers."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        text = (ROOT / "params.yaml").read_text()
        text = re.sub(r"(?m)^    uniform: 4000$", f"    uniform: {count}", text, count=1)
        (Path(folder) / "params.yaml").write_text(text)
        for stage in ("dataset", "subsets"):
            command = [sys.executable, "-m", f"flows.{stage}"]
            subprocess.run(command, cwd=folder, env=environment, check=True)
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.targets"], cwd=folder, env=environment
        )
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, memory(process.pid))
            time.sleep(0.2)
        seconds = time.perf_counter() - begin
        metrics = json.loads((Path(folder) / "artifacts" / "targets" / "metrics.json").read_text())
    trained = metrics["subsets"]
    return {
        "work": name,
        "seconds": f"{seconds:.1f} (with start-up)",
        "us a subset": f"{seconds / trained * 1e6:.0f}",
        "peak GiB": f"{peak:.2f} (stage and workers, without Prefect's server)",
        "converged or degenerate": f"{trained - metrics['not_converged']}/{trained}",
    }


def memory(pid: int) -> float:
    """GiB of a process and its children; pages that they share count once."""
    used = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                used += process.memory_full_info().pss
    return used / 2**30


def exactness() -> dict[str, Callable[[], dict[str, str]]]:
    """Each row of the table of exactness: the slow grid of tests/targets/test_linear.py."""
    source = ROOT / "tests" / "targets" / "test_linear.py"
    spec = importlib.util.spec_from_file_location("test_linear", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def row(name: str, pool: str, subsets: int) -> dict[str, str]:
        warnings.simplefilter("ignore")
        told: dict[str, str] = {}
        module.largest_difference(name, pool, subsets, told.__setitem__)
        print(name, pool, told, file=sys.stderr, flush=True)
        return {"family, data": f"{name}, {pool}", "subsets": str(subsets), **told}

    return {f"{name}, {pool}": partial(row, name, pool, count) for name, pool, count in module.FULL}


def table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "Not measured yet."
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(str(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def speed(repeats: int) -> dict[str, Callable[[], dict[str, str]]]:
    """Each row of the speed table, by its name."""
    cores = os.cpu_count() or 1

    def row(work: Work) -> dict[str, str]:
        with Parallel(n_jobs=cores) as parallel:
            return compared(work, parallel, cores, repeats)

    return {work.name: partial(row, work) for work in works()}


HEADS = {
    "speed": "| work | goal |",
    "scale": "| work | seconds |",
    "exact": "| family, data |",
}


def kept(part: str) -> dict[str, dict[str, str]]:
    """The rows of a table as they stand in RESULTS.md, by name."""
    lines = RESULTS.read_text().splitlines()
    begin = next((at for at, line in enumerate(lines) if line.startswith(HEADS[part])), None)
    if begin is None:
        return {}
    names = cells(lines[begin])
    rows: dict[str, dict[str, str]] = {}
    for line in lines[begin + 2 :]:
        if not line.startswith("|"):
            break
        row = dict(zip(names, cells(line), strict=True))
        rows[row[names[0]]] = row
    return rows


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def measure(part: str | None, words: list[str], repeats: int) -> None:
    """Measures the rows that were asked for; each is written as soon as it is known."""
    offered = {"speed": speed(repeats), "scale": at_scale(), "exact": exactness()}
    for name, rows in offered.items():
        if part not in {None, name}:
            continue
        for key, measured in rows.items():
            if not words or any(word in key for word in words):
                row = measured()
                found = {each: kept(each) for each in offered}
                found[name].pop(key, None)  # so that the newest row is the last
                found[name][key] = row
                write_section(
                    section({each: rows_in(offered[each], found[each]) for each in offered})
                )


def rows_in(order: Iterable[str], found: dict[str, dict[str, str]]) -> list[dict[str, str]]:
    """The rows there are, in their order, with the columns of the newest."""
    if not found:
        return []
    columns = list(list(found.values())[-1])
    rows = [found[key] for key in order if key in found]
    return [{column: row.get(column, "") for column in columns} for row in rows]


def section(tables: dict[str, list[dict[str, str]]]) -> str:
    return f"""## Target models

`python -m tests.benchmarks.targets`; {os.cpu_count()} cores ({platform.machine()}), torch {torch.__version__},
scikit-learn {sklearn.__version__}, Python {platform.python_version()}. No accelerator was there.
Ratio = rival's time a subset / ours, both on all cores, both to a gradient norm of 1e-9 or less,
median of the repeats (lowest to highest; their number); `rival to 1e-6`: the ratio if only the rival may
stop earlier. Load = the machine's load average after the row: other work ran beside it wherever it is
much above {os.cpu_count()}. Products = share of the machine's best rate in square products of float32,
taken right after the row, that its matrix products reach over the whole of the training time.

{table(tables["speed"])}

{LIMITS}
{table(tables["scale"])}

{EXACT}
{table(tables["exact"])}
"""


LIMITS = """**What limits.** One core of this machine, quiet: 100 GFLOP/s in float32, 50 in float64. Ours on one core, a
subset, by the kernels in C and, in brackets, by torch as it is without a compiler: iris 2.6 us (5.0), spam
logistic 57 (115) standardised and 22 (33) by largest row norm, higgs 21 (46) and 13 (24), svm 36 (364) and 15 (35),
ridge 14 (91) and 12 (24), softmax 2,700 (10,800) standardised and 4,000 (23,000) unscaled, mlp 2,800 (6,200).
`train_targets` adds 1 to 2 us a subset around them. `products` counts what the method needs (a symmetric matrix once,
points that are there), so that its complement holds widened rows, other arithmetic and waiting.

What a subset of spam takes on one core, in us:

| | steps | products with points | Hessians made | factors | solves | sum |
|---|---|---|---|---|---|---|
| logistic, standardised | 10.0 | 18 | 23 | 7 | 5 | 56 |
| svm, standardised | 7.5 | 12 | 4 | 14 | 3 | 36 |
| svm, largest row norm | 2.5 | 4 | 5 | 3 | 1 | 15 |
| ridge, standardised | 2.9 | 4 | 5 | 2 | 1 | 14 |
| ridge, largest row norm | 2.0 | 3 | 5 | 2 | 1 | 12 |

- *ridge*: 100 times is some 8 us of one core, `train_targets` included. A Hessian runs at the peak (82 points on average,
  the fewer of those that are present and absent), its factor takes 2.3 us of which a third is the latency of 58 pivots one
  after the other, and a step's scores and gradient in float64 are bound by loads, one vector a cycle, at half of the peak
  (1.6 us; .9 in float32, which is enough for the last step): 10 us, more than the goal with nothing around them. At 100% of
  the peak the same work would be about 150 times. Conjugate gradients instead of a factor need 8 to 25 products a solve and
  are no faster; sums of groups of points made beforehand (a table of each group's 16 sums) do not fit the second cache.
- *svm, largest row norm* is at its goal's edge: of 15 repeats the median was 48, of five it was 46 to 53, as scikit-learn's time
  moves. A fifth of it are factors; keeping an old one while few points cross their margin costs as much in steps.
- *softmax*: 60% of the time is products with the Hessian, near the peak; their number (128 a subset for standardised
  features, 284 with a diagonal preconditioner) is what is left to lower.

Tried without gain: prefetching the points of the next group, one pass for a step's scores and gradient (3%), a
block-diagonal factor of each class for softmax (10 to 25% fewer products, more than that to make it), more pairs of
directions kept than 6, steps by limited-memory BFGS for softmax (as many gradients as conjugate gradients need products).
"""

EXACT = """Against scikit-learn at its tightest tolerance, on random subsets of which every second one is a
resample with counts: largest difference of all parameters relative to their length, over the rows
where the reference is not the looser side (by its gradient norm), and how many rows are left out so.
"""

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=list(HEADS), help="one table; default: all")
    parser.add_argument("words", nargs="*", help="only rows whose name has one of these words")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="of each row of speed")
    parser.add_argument("--process", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process:
        scale(options.process)
    else:
        measure(options.part, options.words, options.repeats)
