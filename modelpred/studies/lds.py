"""How well are margins of single test rows ranked? The linear datamodelling score (LDS).

m random subsets of half of the points are retrained. For each test row, Spearman's correlation over
the subsets between its true margin and a predicted one; the score is the mean over test rows (Park
et al. 2023, "TRAK"), with a 95% interval over test rows that takes the subsets as given. Margins
are predicted in two forms:

    direct     the margin of the model that a refit gives for the subset
    additive   Σ_{i in subset} a[t, i], where a[t, i] is the refit's own effect of leaving i out of
               the whole pool, margin_t(all) - margin_t(all but i); or an attribution from outside

An attribution from outside (TRAK, dattri, captum) is a matrix [test rows, points] that is positive
where having the point raises the margin of the test row. The retrained subsets are a bank that is
written as Parquet, so that one ground truth scores all.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from modelpred.dataset.files import parquet_bytes, write_atomically
from modelpred.dataset.tables import InvalidInput
from modelpred.metrics import lds
from modelpred.refits.retraining import Refit
from modelpred.studies.utility import StudyContext, StudyResult, refitted, score_blocks

STUDY = "lds"
LDS_SCHEMA = {
    "method": pl.String, "form": pl.String, "lds": pl.Float64, "low": pl.Float64,
    "high": pl.Float64, "test_rows": pl.Int64, "subsets": pl.Int64,
}  # fmt: skip


class LdsConfig(BaseModel):
    """What is retrained.

    Attributes:
        subsets: random subsets that are retrained.
        share: of the points that each of them holds.
        seed: of the draws.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    subsets: int = Field(default=500, ge=3)
    share: float = Field(default=0.5, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class MarginBank:
    """Retrained subsets and the margins of the test rows under each.

    Attributes:
        weights: 0/1, [subsets, points].
        margins: [subsets, test rows].
        converged: whether training converged; the others are left out of every score.
    """

    weights: UInt8[Tensor, "subsets points"]
    margins: Float[Tensor, "subsets test_rows"]
    converged: Bool[Tensor, " subsets"]


def retrained_bank(config: LdsConfig, context: StudyContext) -> MarginBank:
    """The ground truth: margins under exact retraining of random subsets."""
    generator = context.generator(seed=config.seed, study=STUDY, block=0)
    size = max(1, round(config.share * context.pool))
    weights = torch.zeros(config.subsets, context.pool, dtype=torch.uint8)
    for row in range(config.subsets):
        weights[row, torch.from_numpy(generator.permutation(context.pool)[:size])] = 1
    trained = context.truth.train(weights, progress=context.progress)
    return MarginBank(weights, margins_of(trained.parameters, context), trained.converged)


def run(
    config: LdsConfig,
    context: StudyContext,
    *,
    attributions: Mapping[str, Tensor | NDArray[Any]] | None = None,
    bank: MarginBank | None = None,
) -> StudyResult:
    """Return the table `lds`: method, form, lds, low, high (95%), test_rows, subsets.

    Args:
        config: what is retrained.
        context: its refits are scored in both forms.
        attributions: matrices from outside, [test rows, points], by name.
        bank: what was retrained before; by default it is retrained now.

    Raises:
        InvalidInput: an attribution or a bank of other rows.
    """
    truth = retrained_bank(config, context) if bank is None else _checked_bank(bank, context)
    outside = {
        name: _checked_attribution(name, matrix, context)
        for name, matrix in (attributions or {}).items()
    }
    kept = truth.converged
    weights, margins = truth.weights[kept], truth.margins[kept]
    rows: list[dict[str, object]] = []

    def score(method: str, form: str, predicted: Tensor) -> None:
        # Equal models differ by rounding, which is nothing to rank.
        scale = predicted.abs().max().clamp(min=torch.finfo(predicted.dtype).tiny)
        found = lds((predicted / scale).round(decimals=10), margins)
        rows.append(
            {"method": method, "form": form, "lds": found.mean, "low": found.low,
             "high": found.high, "test_rows": found.n, "subsets": len(margins)}
        )  # fmt: skip

    for done, (name, refit) in enumerate(context.refits.items(), start=1):
        score(name, "direct", margins_of(refitted(refit, weights, context), context))
        score(name, "additive", summed(weights, leave_one_out_effects(refit, context)))
        context.progress(done, len(context.refits), f"{STUDY}: {name}")
    for name, matrix in outside.items():
        score(name, "additive", summed(weights, matrix))
    metrics = {f"{row['method']}.{row['form']}": row["lds"] for row in rows} | {
        "subsets": len(kept),
        "not_converged": int((~kept).sum()),
    }
    return StudyResult(metrics, {"lds": pl.DataFrame(rows, schema=LDS_SCHEMA)})


def margins_of(
    parameters: Float[Tensor, "subsets parameters"], context: StudyContext
) -> Float[Tensor, "subsets test_rows"]:
    """Margins of the test rows under each model."""
    model, test = context.model, context.test_points
    blocks = [
        model.margins(scores, test.labels) for scores in score_blocks(model, parameters, test)
    ]
    return torch.cat(blocks) if blocks else parameters.new_zeros(0, len(test.labels))


def leave_one_out_effects(refit: Refit, context: StudyContext) -> Float[Tensor, "test_rows points"]:
    """What each point adds to each margin when it is the last to join the pool."""
    everything = torch.ones(1, context.pool, dtype=torch.float64)
    without = 1 - torch.eye(context.pool, dtype=torch.float64)
    parameters = refitted(refit, torch.cat([everything, without]), context)
    margins = margins_of(parameters, context)
    return (margins[0] - margins[1:]).T


def summed(
    weights: UInt8[Tensor, "subsets points"], attribution: Float[Tensor, "test_rows points"]
) -> Float[Tensor, "subsets test_rows"]:
    """Σ_i w_i a[t, i]: what an attribution predicts, up to a constant of each test row."""
    return weights.to(attribution.dtype) @ attribution.T


def write_bank(bank: MarginBank, path: Path) -> None:
    """Write a row per subset: weights (list), margins (list), converged; one Parquet file."""
    table = pl.DataFrame(
        {
            "weights": bank.weights.numpy(),
            "margins": bank.margins.numpy(),
            "converged": bank.converged.numpy(),
        }
    )
    write_atomically(path, parquet_bytes(table))


def read_bank(path: Path) -> MarginBank:
    """The bank written there; InvalidInput where the file is not one."""
    if not path.is_file():
        raise InvalidInput(f"{path} is missing; run the {STUDY} study first")
    try:
        table = pl.read_parquet(io.BytesIO(path.read_bytes()))
        return MarginBank(
            torch.from_numpy(table["weights"].to_numpy(writable=True).astype(np.uint8)),
            torch.from_numpy(table["margins"].to_numpy(writable=True).astype(np.float64)),
            torch.from_numpy(table["converged"].to_numpy(writable=True).astype(np.bool_)),
        )
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        raise InvalidInput(f"{path} is no bank of margins: {error}; run the study again") from error


def _checked_bank(bank: MarginBank, context: StudyContext) -> MarginBank:
    expected = (len(bank.weights), context.pool, len(context.test_points.labels))
    found = (len(bank.margins), bank.weights.shape[1], bank.margins.shape[1])
    if found != expected:
        raise InvalidInput(
            f"the bank has (subsets, points, test rows) {found}, expected {expected}; "
            "was it retrained for another data set?"
        )
    return bank


def _checked_attribution(
    name: str, matrix: Tensor | NDArray[Any], context: StudyContext
) -> Float[Tensor, "test_rows points"]:
    values = torch.as_tensor(matrix).to(torch.float64)
    expected = [len(context.test_points.labels), context.pool]
    if list(values.shape) != expected:
        turned = "; transpose it" if list(values.shape) == expected[::-1] else ""
        raise InvalidInput(
            f"attribution {name!r} has shape {list(values.shape)}, expected [test rows, points] = "
            f"{expected}{turned}"
        )
    if not bool(values.isfinite().all()):
        raise InvalidInput(f"attribution {name!r} has values that are not finite")
    if name in context.refits:
        raise InvalidInput(f"attribution {name!r} has the name of a method; rename it")
    return values
