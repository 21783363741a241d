"""What the predictor's benchmarks share: pools with trained subsets, and their part of RESULTS.md."""

import platform
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modelpred.dataset import DatasetConfig, prepare
from modelpred.subsets import Subsets, SubsetsConfig, draw_subsets
from modelpred.targets import (
    TrainedTargets,
    points_of,
    target_model,
    train_targets,
)
from tests.benchmarks import problems, results

SECTION = "## Predictor"
ELSEWHERE = {"higgs": "higgs_atlas.parquet"}  # tables that do not ship
TABLES = Path(__file__).parents[3] / "shared" / "data"


@dataclass(frozen=True)
class Bank:
    """Subsets of one role with their trained parameters; satisfies `fidelity.HeldOut`."""

    designs: tuple[str, ...]
    weights: Tensor
    parameters: Tensor
    converged: Tensor
    degenerate: Tensor

    @classmethod
    def of(cls, drawn: Subsets, trained: TrainedTargets, role: str) -> "Bank":
        """The rows of that role."""
        rows = torch.tensor([name == role for name in drawn.roles])
        return cls(
            tuple(np.array(drawn.designs)[rows.numpy()]),
            drawn.weights[rows].to(torch.float64),
            trained.parameters[rows],
            trained.converged[rows],
            trained.degenerate[rows],
        )

    def usable(
        self, count: int | None = None, *, design: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Weights and parameters of the rows that are a truth, the first `count` of them."""
        kept = self.converged & ~self.degenerate
        if design:
            kept &= torch.tensor([name == design for name in self.designs])
        return self.weights[kept][:count], self.parameters[kept][:count]


@dataclass(frozen=True)
class Problem(problems.Problem):
    """A problem with banks to fit, validate and test a predictor."""

    fit: Bank
    validation: Bank
    test: Bank


def problem(
    source: str,
    family: str,
    scaling: str = "standardise",
    *,
    fit: dict[str, int],
    test: dict[str, int],
    tolerance: float = 1e-6,
) -> Problem:
    """The pool of a table with its scaler fitted on training rows, and its trained subsets."""
    file = str(TABLES / ELSEWHERE[source]) if source in ELSEWHERE else None
    data = prepare(DatasetConfig(source=source, scaling=scaling, file=file))
    classes = 0 if family == "ridge" else len(data.classes)
    points = points_of(data.features, data.labels, classes)
    drawn = draw_subsets(
        SubsetsConfig(fit=fit, validation={"uniform": 200}, test=test), points=len(data.labels)
    )
    model = target_model(family)
    trained = train_targets(
        model, points.features, points.labels, drawn.weights.to(torch.float64),
        classes=classes, tolerance=tolerance,
    )  # fmt: skip
    banks = {role: Bank.of(drawn, trained, role) for role in ("fit", "validation", "test")}
    return Problem(
        f"{source}, {family}, {scaling.replace('_', ' ')}",
        model,
        points,
        points_of(data.test_features, data.test_labels, classes),
        **banks,
    )


def machine() -> str:
    """Says what the numbers were measured on."""
    return f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header), *rows]]


def write_part(title: str, lines: list[str]) -> None:
    """Put the part under its title into this benchmark's section of RESULTS.md, replacing its last."""
    results.write_part(SECTION, title, lines)
