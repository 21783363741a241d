"""Values of rows beside exact retraining and pyDVL, wrong labels, selection: speed and quality.

    python -m tests.benchmarks.valuation quality speed labels selection prefixes
    python -m tests.benchmarks.valuation speed labels --pydvl ../pydvl/bin/python

Each part rewrites its own part of RESULTS.md's section. pyDVL wants other versions of our own
dependencies, so it runs in an environment of its own (`pip install pydvl==0.10.0`), in a process
that valuation_pydvl.py is; without `--pydvl` its rows are left out. Every time counts the training
of the targets and the fit of the predictor unless it says otherwise.
"""

import argparse
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from modelpred.dataset import Dataset, DatasetConfig, prepare
from modelpred.metrics import spearman
from modelpred.predictor import Predictor, PredictorConfig, Refined, fit_predictor
from modelpred.predictor.network import AnchoredNetwork
from modelpred.refits import Refit, Retraining, rivals
from modelpred.refits.timing import median_seconds
from modelpred.report.methods import is_predictor
from modelpred.studies import labels as labels_study
from modelpred.studies import selection, valuation
from modelpred.studies.context import StudyContext
from modelpred.studies.semivalues import Values, estimate_values
from modelpred.studies.utility import game_of
from modelpred.studies.valuation_methods import MethodValues
from modelpred.subsets import SubsetsConfig, draw_subsets
from modelpred.targets import dataset_points, dataset_test_points, target_model, train_targets
from tests.benchmarks.results import read_section, write_part

SECTION = "## Values"
CHILD = Path(__file__).with_name("valuation_pydvl.py")
GOAL_SHARE, GOAL_OVERLAP, GOAL_SPEED, GOAL_AUROC = 0.97, 0.9, 100, 0.01


@dataclass(frozen=True)
class Pool:
    """Rows, a family, and how many targets the predictor gets."""

    source: str
    family: str = "logistic"
    points: int | str = "auto"
    test: int | str = "auto"
    scaling: str = "standardise"
    targets: int = 4000
    flip: float = 0.0
    seed: int = 0
    file: str | None = None
    predictor: PredictorConfig = field(default_factory=PredictorConfig)

    @property
    def words(self) -> str:
        """For the tables."""
        return f"{self.source}, {self.family}"

    def dataset(self) -> Dataset:
        """The prepared rows."""
        return prepare(
            DatasetConfig(
                source=self.source,
                file=self.file,
                points=self.points,
                test=self.test,
                scaling=self.scaling,
                flip=self.flip,
                seed=self.seed,
            )
        )


def digits(points: int, targets: int, epochs: int) -> Pool:
    """Rows of handwritten digits, for a predictor that is fitted in so many epochs."""
    fit = PredictorConfig(epochs=epochs)
    return Pool("digits", "softmax", points=points, test=300, targets=targets, predictor=fit)


@dataclass(frozen=True)
class Made:
    """A study's context, and what making the predictor took."""

    context: StudyContext
    data: Dataset
    seconds: float

    @property
    def predictor(self) -> Predictor:
        """The fitted one."""
        found = self.context.refits["predictor"]
        assert isinstance(found, Predictor)
        return found


def made(pool: Pool, *, with_rivals: bool = True) -> Made:
    """Trains the targets, fits the predictor, and takes the time of both; then the rivals."""
    data = pool.dataset()
    points = dataset_points(data)
    model = target_model(pool.family)
    began = time.perf_counter()
    drawn = draw_subsets(
        SubsetsConfig(
            fit={"uniform": pool.targets - pool.targets // 5, "bootstrap": pool.targets // 5},
            validation={"uniform": max(20, pool.targets // 20)},
            test={"uniform": 5},
            seed=pool.seed,
        ),
        points=len(data.labels),
    )
    roles = np.array(drawn.roles)
    weights = drawn.weights[torch.from_numpy(roles != "test")].double()
    roles = roles[roles != "test"]
    trained = train_targets(
        model, points.features, points.labels, weights, classes=points.classes
    )  # fmt: skip
    usable = trained.converged.numpy()
    fit, check = (
        (weights[rows], trained.parameters[rows])
        for rows in (torch.from_numpy(usable & (roles == role)) for role in ("fit", "validation"))
    )
    predictor = fit_predictor(pool.predictor, model, points, *fit, validation=check)
    seconds = time.perf_counter() - began
    others = rivals(model, points, *fit) if with_rivals else {}
    context = StudyContext(
        Retraining(model, points),
        dataset_test_points(data),
        {"predictor": predictor, **others},
        data.row_ids,
        seed=pool.seed,
        rows=data.rows,
        mislabelled=data.mislabelled,
    )
    print(f"  {pool.words}: {len(weights)} targets and fit in {seconds:.1f} s", flush=True)
    return Made(context, data, seconds)


def table(heads: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table."""
    return [
        "| " + " | ".join(heads) + " |",
        "|---" * len(heads) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


# Quality

QUALITY = (
    (Pool("iris"), 40000),
    (Pool("spam"), 2000),
    (Pool("higgs"), 2000),
    (digits(150, 1000, epochs=10), 6000),
)


def quality(pools: list[str], higgs: str | None) -> Iterator[str]:
    """Spearman and overlap with exact values on other orders, for every refit.

    Rows of pools that are not asked for stay as they were.
    """
    rows: list[list[str]] = []
    for pool, permutations in QUALITY:
        if pool.source not in pools or (pool.source == "higgs" and higgs is None):
            continue
        work = made(replace(pool, file=higgs) if pool.source == "higgs" else pool)
        config = valuation.ValuationConfig(
            permutations=permutations, truth_permutations=permutations
        )
        metrics = valuation.run(config, work.context).metrics
        ceiling = metrics["truth_reliability"]
        found = metrics["methods"]
        rivals_of = [name for name in found if not is_predictor(name) and found[name]["spearman"]]
        best = max(rivals_of, key=lambda name: found[name]["spearman"])
        share = metrics["spearman"] / ceiling
        plain = found["predictor"]
        rows.append(
            [
                f"{pool.words}, {work.context.pool} rows",
                str(permutations),
                f"{ceiling:.4f}",
                (
                    f"{metrics['spearman']:.4f} ({metrics['spearman_low']:.4f} to "
                    f"{metrics['spearman_high']:.4f})"
                ),
                f"**{share:.3f}**",
                f"**{metrics['top_overlap']:.2f}** ({metrics['truth_top_overlap']:.2f})",
                f"{metrics['bottom_overlap']:.2f}",
                f"{plain['spearman'] / ceiling:.3f}, {plain['top_overlap']:.2f}",
                f"{best} {found[best]['spearman'] / ceiling:.3f}, {found[best]['top_overlap']:.2f}",
                f"{work.seconds:.0f} + {metrics['seconds']:.0f}",
                f"{metrics['truth_seconds']:.0f}",
            ]
        )
        print(rows[-1], flush=True)
    order = [pool.words for pool, _ in QUALITY]
    rows = with_earlier_rows("quality", rows, key=lambda name: order.index(name.rsplit(", ", 1)[0]))
    yield (
        "Shapley values of minus the test loss by predicted models against those by exact "
        "retraining, the same estimator (stratified) on other random orders, as many for both. "
        "Ceiling: the truth's split-half reliability by Spearman-Brown. Share = Spearman / ceiling "
        f"(goal {GOAL_SHARE}); top tenth = overlap of the highest tenth of rows, in brackets that of the truth's own halves (goal "
        f"{GOAL_OVERLAP}). Plain, best rival: share, and top tenth. Predicted models take one Newton "
        "step (default of the study), plain ones none.\n"
    )
    heads = (
        *("pool", "orders", "ceiling", "Spearman (95%)", "share", "top tenth", "bottom tenth"),
        *("plain", "best rival", "seconds: fit, values", "seconds: retraining"),
    )
    yield from table(list(heads), rows)


# Speed

SPEED = (
    (Pool("iris", targets=150, predictor=PredictorConfig(epochs=2)), 60.0),
    (Pool("spam", targets=500, predictor=PredictorConfig(epochs=6)), 150.0),
)
SEEDS = (11, 12, 13)
REFERENCE = {"iris": 20_000, "spam": 800}  # orders
MOST = {"iris": 8192, "spam": 512}  # random orders that our own estimates may take


def child(pydvl: str, what: str, context: StudyContext, *options: str) -> dict[str, Any]:
    """What pyDVL says of the pool."""
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "pool.npz", Path(folder) / "values.npz"
        np.savez(
            given,
            features=context.points.features.numpy(),
            labels=context.points.labels.numpy(),
            test_features=context.test_points.features.numpy(),
            test_labels=context.test_points.labels.numpy(),
        )
        # PYTHONPATH of this process would give pyDVL our versions.
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        clean |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        command = [pydvl, str(CHILD), what, str(given), str(out), *options]
        subprocess.run(command, check=True, env=clean)
        return dict(np.load(out))


def reference_values(context: StudyContext, orders: int) -> np.ndarray:
    """Exact values that both are compared to."""
    return estimate_values(
        game_of(context.truth, context),
        points=context.pool,
        permutations=orders,
        generator=np.random.default_rng(7),
    ).values


def reached(
    refit: Refit, context: StudyContext, reference: np.ndarray, *, goal: float, most: int
) -> tuple[int, float, float]:
    """The orders it takes to reach the goal, then their seconds and Spearman over the seeds."""
    game = game_of(refit, context)

    def run(orders: int, seed: int) -> Values:
        return estimate_values(
            game,
            points=context.pool,
            permutations=orders,
            generator=np.random.default_rng(seed),
        )

    estimates = run(most, 10).estimates
    means = estimates.cumsum(axis=0) / np.arange(1, len(estimates) + 1)[:, None]
    enough = [spearman(values, reference) >= goal for values in means]
    orders = 2 * (enough.index(True) + 1) if any(enough) else most
    while True:
        began = time.perf_counter()
        found = [spearman(run(orders, seed).values, reference) for seed in SEEDS]
        seconds = (time.perf_counter() - began) / len(SEEDS)
        if np.mean(found) >= goal or orders >= most:
            return orders, seconds, float(np.mean(found))
        orders = min(most, 2 * -(-orders * 5 // 8))


def speed(pydvl: str | None, pools: list[str]) -> Iterator[str]:
    """Seconds to the Spearman that pyDVL reaches, for predicted and for exact models."""
    rows: list[list[str]] = []
    made(SPEED[0][0], with_rivals=False)  # the first fit of a process loads parts of PyTorch
    for pool, limit in SPEED:
        if pool.source not in pools or pydvl is None:
            continue
        work = made(pool, with_rivals=False)
        context = work.context
        reference = reference_values(context, REFERENCE[pool.source])
        kept = child(pydvl, "shapley", context, "--permutations", "20000", "--seconds", str(limit))
        last = len(kept["seconds"]) - 1
        for mark in (last // 8, last):
            goal, seconds = spearman(kept["values"][mark], reference), kept["seconds"][mark]
            for name, refit, before in (
                ("predictor", Refined(work.predictor, 1.0), work.seconds),
                ("exact, batched", context.truth, 0.0),
            ):
                needed, took, agreement = reached(
                    refit, context, reference, goal=goal, most=MOST[pool.source]
                )
                rows.append(
                    [
                        pool.words,
                        f"{goal:.3f} ({kept['permutations'][mark]})",
                        f"{seconds:.1f}",
                        name,
                        f"{agreement:.3f} ({needed})",
                        f"{before:.2f} + {took:.2f}",
                        f"**{seconds / (before + took):.0f}**",
                    ]
                )
                print(rows[-1], flush=True)
    rows = with_earlier_rows("speed", rows, key=[pool.words for pool, _ in SPEED].index)
    budgets = ", ".join(
        f"{pool.source} {pool.targets} targets, {pool.predictor.epochs} epochs" for pool, _ in SPEED
    )
    yield (
        f"Seconds on {os.cpu_count()} cores to reach the Spearman that pyDVL reaches at an eighth and "
        "at the end of its time, to a common reference (exact retraining on other draws: "
        f"{REFERENCE['iris']:,} stratified orders for iris, {REFERENCE['spam']} for spam; in brackets "
        "the orders that were needed). pyDVL 0.10.0: PermutationSampler without truncation, "
        "scikit-learn's newton-cholesky, a process a core. Ours: stratified orders, one Newton step "
        f"from each prediction, mean of three seeds. Fit: targets and predictor ({budgets}). Goal "
        f"{GOAL_SPEED} times faster, the fit included.\n"
    )
    heads = (
        *("pool", "pyDVL reaches", "pyDVL, seconds", "ours", "reaches"),
        *("seconds: fit + values", "times faster"),
    )
    yield from table(list(heads), rows)


# Wrong labels

LABELS = (
    (Pool("spam", targets=1000), 50),
    (Pool("breast_cancer", targets=1000), 50),
    (digits(200, 500, epochs=6), 20),
)
FLIPS = (0.1, 0.2)


def labels(pydvl: str | None, seeds: int) -> Iterator[str]:
    """AUROC and recall of planted labels for every method, pool and share."""
    cells: dict[str, dict[str, tuple[float, float]]] = {}
    columns: list[str] = []
    for pool, permutations in LABELS:
        for flip in FLIPS:
            columns.append(f"{pool.source} {flip:.0%}")
            runs = [
                _detections(replace(pool, flip=flip, seed=seed), permutations, pydvl)
                for seed in range(seeds)
            ]
            for name in runs[0]:
                area, recall = np.mean([run[name] for run in runs], axis=0)
                cells.setdefault(name, {})[columns[-1]] = float(area), float(recall)
            print(columns[-1], {name: cells[name][columns[-1]] for name in runs[0]}, flush=True)
    best = {column: max(row[column][0] for row in cells.values()) for column in columns}
    rows = [
        [
            f"{name} (ours)" if name in labels_study.OURS else name,
            *(_cell(*row[column], best[column]) for column in columns),
        ]
        for name, row in cells.items()
    ]
    yield (
        f"AUROC of finding planted labels, and share of them among as many lowest rows; mean of "
        f"{seeds} seeds of rows, flips and draws; digits: 200 rows. Bold: best, or within {GOAL_AUROC} of the best.\n"
    )
    yield from table(["method", *columns], rows)


def _cell(area: float, recall: float, best: float) -> str:
    text = f"{area:.3f}, {recall:.2f}"
    return f"**{text}**" if area >= best - GOAL_AUROC else text


def _detections(pool: Pool, permutations: int, pydvl: str | None) -> dict[str, tuple[float, float]]:
    context = made(pool).context
    found = labels_study.run(labels_study.LabelsConfig(permutations=permutations), context).tables[
        "detection"
    ]
    if pydvl is not None:
        found = pl.concat([found, _pydvl_labels(pydvl, context)])
    return {row["method"]: (row["auroc"], row["recall"]) for row in found.to_dicts()}


def _pydvl_labels(pydvl: str, context: StudyContext) -> pl.DataFrame:
    kept = child(pydvl, "knn", context)
    worth = MethodValues(kept["values"][0], float(kept["seconds"][0]))
    assert context.mislabelled is not None
    return labels_study.detection_table({"knn_shapley (pyDVL)": worth}, context.mislabelled.numpy())


# Selection

SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
CANDIDATES = 4096


def select(seeds: int) -> Iterator[str]:
    """Retrained test loss of every way to choose, and candidate sets per second."""
    pool = Pool("spam", targets=2000)
    found: list[selection.StudyResult] = []
    speeds: list[float] = []
    for seed in range(seeds):
        work = made(replace(pool, seed=seed))
        config = selection.SelectionConfig(random=50, seed=seed)
        found.append(selection.run(config, work.context))
        speeds.append(candidate_sets_a_second(work.context))
        print(found[-1].metrics["methods"], found[-1].metrics["lead"], flush=True)
    yield (
        f"{pool.words}: test loss of exactly retrained models of the chosen rows, on test rows "
        f"that nobody chose by; mean of {seeds} seeds of rows and halves of the test rows. "
        f"Predicted candidate sets scored a second, at a fifth of the rows: {np.mean(speeds):,.0f} "
        f"({min(speeds):,.0f} to {max(speeds):,.0f}).\n"
    )
    losses = {
        name: [result.metrics["methods"][name]["loss"] for result in found]
        for name in found[0].metrics["methods"]
    }
    order = sorted(losses, key=lambda name: float(np.mean(losses[name])))
    seconds = {
        name: np.mean([result.metrics["methods"][name]["seconds"] or np.nan for result in found])
        for name in order
    }
    yield from table(
        ["a fifth of the rows, chosen by", "test loss", *(f"seed {s}" for s in range(seeds)), "s"],
        [
            [
                name,
                f"{np.mean(losses[name]):.4f}",
                *(f"{loss:.4f}" for loss in losses[name]),
                f"{seconds[name]:.1f}" if np.isfinite(seconds[name]) else "",
            ]
            for name in order
        ],
    )
    leads = [
        f"{m['lead']:.4f} ({m['lead_low']:.4f} to {m['lead_high']:.4f}) over {m['best_rival']}"
        for m in (result.metrics for result in found)
    ]
    yield f"\nLead of the swapped choice over the best rival's, paired by test rows: {'; '.join(leads)}.\n"
    curves = pl.concat([result.tables["curves"] for result in found]).filter(
        pl.col("order") == selection.MOST
    )
    names = [name for name in order if name in set(curves["method"])]
    rows: list[list[str]] = []
    for name in names:
        row = [name]
        for share in SHARES:
            here = curves.filter(pl.col("method") == name, (pl.col("share") - share).abs() < 0.005)
            row.append(f"{here['loss'].to_numpy().mean():.3f}")
        rows.append(row)
    yield from table(["share of rows kept", *(f"{share:.0%}" for share in SHARES)], rows)


def candidate_sets_a_second(context: StudyContext) -> float:
    """Sets of a fifth of the rows whose predicted validation loss is known after a second."""
    game = game_of(context.refits["predictor"], context)
    generator = np.random.default_rng(0)
    kept = np.argsort(generator.random((CANDIDATES, context.pool)), axis=1) < context.pool // 5
    weights = torch.from_numpy(kept).to(torch.uint8)
    game(weights)
    return CANDIDATES / median_seconds(lambda: game(weights), timings=3)


# Prefixes

PREFIX_ORDERS = 20


def prefixes() -> Iterator[str]:
    """What a cumulative sum over an order saves of the answers for all its prefixes."""
    pool = Pool("spam", targets=400, predictor=PredictorConfig(epochs=2))
    work = made(pool, with_rivals=False)
    predictor, context = work.predictor, work.context
    network, bound = predictor.network, predictor.bound
    assert isinstance(network, AnchoredNetwork)
    draws = np.random.default_rng(0)
    orders = np.stack([draws.permutation(context.pool) for _ in range(PREFIX_ORDERS)])
    sizes = torch.arange(1, context.pool + 1)
    weights = (torch.from_numpy(orders)[:, None] < sizes[:, None]).flatten(0, 1)
    light, small = weights.float(), weights.to(torch.uint8)
    starts = network.prepare(light, bound)
    game = game_of(predictor, context)
    parts: dict[str, Callable[[], object]] = {
        "the answer": lambda: predictor(small),
        "the answer and its score": lambda: game(small),
        "anchors, linear in the weights but for a step": lambda: network.prepare(light, bound),
        "gradients of one of the learned steps": lambda: predictor.model.gradient(
            starts, light, bound.points
        ),
    }
    with torch.no_grad():
        took = {name: median_seconds(part, timings=5) for name, part in parts.items()}
    yield (
        f"{pool.words}: all prefixes of {PREFIX_ORDERS} random orders, median of five. What is "
        "linear in the weights can be carried from prefix to prefix by a cumulative sum; the "
        f"gradients of the {len(network.steps)} learned steps cannot, since each is taken at its "
        "prefix's own parameters.\n"
    )
    whole = took["the answer"]
    yield from table(
        ["part", "µs a prefix", "share of the answer"],
        [
            [name, f"{1e6 * seconds / len(weights):.2f}", f"{seconds / whole:.0%}"]
            for name, seconds in took.items()
        ],
    )


# The section

PARTS = ("quality", "speed", "labels", "selection", "prefixes")


def with_earlier_rows(
    part: str, rows: list[list[str]], *, key: Callable[[str], int]
) -> list[list[str]]:
    """The rows and those of the table under the part's heading that they do not replace, by name."""
    parts = read_section(SECTION).split("\n### ")
    lines = next((own.splitlines() for own in parts if own.startswith(f"{part}\n")), [])
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    done = {row[0] for row in rows}
    found = [*rows, *(row for row in cells[2:] if row[0] not in done)]
    return sorted(found, key=lambda row: key(row[0]))


def written(part: str, lines: list[str], seconds: float) -> None:
    """Put a part's lines into the section, in place of those it had."""
    head = (
        f"`python -m tests.benchmarks.valuation {part}`, {platform.machine()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, load "
        f"{os.getloadavg()[0]:.1f} at the end, {seconds:.0f} s in all."
    )
    write_part(SECTION, part, [head, "", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(PARTS))
    parser.add_argument("--pydvl", help="the python of an environment with pyDVL")
    parser.add_argument("--higgs", help="the file of the table higgs; without, it is left out")
    parser.add_argument("--seeds", type=int, default=3)
    every = sorted({pool.source for pool, _ in QUALITY})
    parser.add_argument(
        "--pools", nargs="*", choices=every, default=every, help="of quality and speed"
    )
    given = parser.parse_args()
    for part in given.parts or PARTS:
        print(part, flush=True)
        began = time.perf_counter()
        lines = list(
            {
                "quality": lambda: quality(given.pools, given.higgs),
                "speed": lambda: speed(given.pydvl, given.pools),
                "labels": lambda: labels(given.pydvl, given.seeds),
                "selection": lambda: select(given.seeds),
                "prefixes": prefixes,
            }[part]()
        )
        print("\n".join(lines), flush=True)
        written(part, lines, time.perf_counter() - began)


if __name__ == "__main__":
    main()
