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
written as Parquet, so that one ground truth scores all: `modelpred lds FILE` scores a matrix in a
file, `score_attribution` one in memory.
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

from modelpred.dataset.files import parquet_bytes
from modelpred.errors import InvalidInput
from modelpred.metrics import lds
from modelpred.refits.retraining import Refit
from modelpred.sealed import write_atomically
from modelpred.studies.utility import (
    StudyContext,
    StudyResult,
    finished,
    refitted,
    retrained,
    scored,
    written_number,
)

STUDY = "lds"
FEWEST = 3  # subsets that can be ranked
LDS_SCHEMA = {
    "method": pl.String, "form": pl.String, "lds": pl.Float64, "low": pl.Float64,
    "high": pl.Float64, "test_rows": pl.Int64, "subsets": pl.Int64,
}  # fmt: skip


class LdsConfig(BaseModel):
    """Section `lds` of params.yaml: what is retrained.

    Attributes:
        subsets: random subsets that are retrained.
        share: of the points that each of them holds.
        seed: of the draws.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    subsets: int = Field(default=500, ge=FEWEST)
    share: float = Field(default=0.5, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class MarginBank:
    """Retrained subsets and the margins of the test rows under each.

    Attributes:
        weights: 0/1, [subsets, points].
        margins: [subsets, test rows]; nan where training did not converge.
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
    exact = retrained(weights, context, progress=context.progress)
    return MarginBank(weights, margins_of(exact, context), finished(exact))


def run(
    config: LdsConfig,
    context: StudyContext,
    *,
    attributions: Mapping[str, Tensor | NDArray[Any]] | None = None,
    bank: MarginBank | None = None,
) -> StudyResult:
    """Return how well every method ranks margins.

    Tables:
        lds: method, form, lds, low, high (95%), test_rows, subsets.
        bank: the retrained bank, as `bank_table` gives it.
        order: split (pool or test), position and row_id of the columns of weights and margins.

    Args:
        config: what is retrained.
        context: its refits are scored in both forms.
        attributions: matrices from outside, [test rows, points], by name.
        bank: what was retrained before; by default it is retrained now.

    Raises:
        InvalidInput: an attribution or a bank of other rows.
    """
    truth = retrained_bank(config, context) if bank is None else _checked_bank(bank, context)
    for name in attributions or ():
        if name in context.refits:
            raise InvalidInput(f"attribution {name!r} has the name of a method; rename it")
    outside = [
        score_attribution(truth, matrix, name=name) for name, matrix in (attributions or {}).items()
    ]
    kept = truth.converged
    if int(kept.sum()) < FEWEST:
        raise InvalidInput(
            f"training converged on {int(kept.sum())} of {len(kept)} subsets; expected {FEWEST} or "
            "more to rank: scale the features, or change targets.C, targets.tolerance or lds.subsets"
        )
    weights, margins = truth.weights[kept], truth.margins[kept]
    rows: list[dict[str, Any]] = []
    for done, (name, refit) in enumerate(context.refits.items(), start=1):
        direct = margins_of(refitted(refit, weights, context), context)
        additive = summed(weights, leave_one_out_effects(refit, context))
        rows += [_row(name, "direct", direct, margins), _row(name, "additive", additive, margins)]
        context.progress(done, len(context.refits), f"{STUDY}: {name}")
    rows += outside
    metrics: dict[str, Any] = {row["method"]: {} for row in rows}
    for row in rows:
        metrics[row["method"]][row["form"]] = written_number(row["lds"])
    metrics |= {"subsets": len(kept), "not_converged": int((~kept).sum())}
    tables = {
        "lds": pl.DataFrame(rows, schema=LDS_SCHEMA),
        "bank": bank_table(truth),
        "order": _order(context),
    }
    return StudyResult(metrics, tables)


def score_attribution(
    bank: MarginBank, matrix: Tensor | NDArray[Any], *, name: str = "attribution"
) -> dict[str, Any]:
    """The row of table `lds` for an attribution from outside.

    Args:
        bank: what was retrained.
        matrix: [test rows, points], positive where having the point raises the margin.
        name: what the row calls it.

    Raises:
        InvalidInput: other rows than the bank's, or values that are not finite.
    """
    values = torch.as_tensor(matrix).to(torch.float64)
    expected = [bank.margins.shape[1], bank.weights.shape[1]]
    if list(values.shape) != expected:
        turned = "; transpose it" if list(values.shape) == expected[::-1] else ""
        raise InvalidInput(
            f"attribution {name!r} has shape {list(values.shape)}, expected [test rows, points] = "
            f"{expected}{turned}"
        )
    if not bool(values.isfinite().all()):
        raise InvalidInput(f"attribution {name!r} has values that are not finite")
    kept = bank.converged
    return _row(name, "additive", summed(bank.weights[kept], values), bank.margins[kept])


def read_attribution(path: Path) -> NDArray[Any]:
    """The matrix in a .npy, .csv or .parquet file (columns are points); nothing is unpickled.

    Raises:
        InvalidInput: no such file, another kind of file, or no matrix of numbers.
    """
    readers = {".npy": _read_npy, ".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix not in readers:
        known = ", ".join(readers)
        raise InvalidInput(f"{path} is no attribution; expected a file that ends in {known}")
    if not path.is_file():
        raise InvalidInput(f"{path} is missing")
    try:
        return readers[path.suffix](path)
    except (pl.exceptions.PolarsError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInput(f"{path} holds no matrix of numbers: {reason}") from error


def _read_npy(path: Path) -> NDArray[Any]:
    return np.load(path, allow_pickle=False)


def _read_csv(path: Path) -> NDArray[Any]:
    return pl.read_csv(path, glob=False).cast(pl.Float64).to_numpy()


def _read_parquet(path: Path) -> NDArray[Any]:
    return pl.read_parquet(path, glob=False).cast(pl.Float64).to_numpy()


def _row(method: str, form: str, predicted: Tensor, margins: Tensor) -> dict[str, Any]:
    # Equal models differ by rounding, which is nothing to rank.
    scale = predicted.abs().max().clamp(min=torch.finfo(predicted.dtype).tiny)
    found = lds((predicted / scale).round(decimals=10), margins)
    return {
        "method": method, "form": form, "lds": found.mean, "low": found.low, "high": found.high,
        "test_rows": found.n, "subsets": len(margins),
    }  # fmt: skip


def _order(context: StudyContext) -> pl.DataFrame:
    pool = pl.DataFrame({"split": "pool", "row_id": list(context.row_ids)})
    test = pl.DataFrame({"split": "test", "row_id": list(context.test_row_ids)}, schema=pool.schema)
    return pl.concat([pool, test]).with_columns(
        pl.int_range(pl.len()).over("split").alias("position")
    )


def margins_of(
    parameters: Float[Tensor, "subsets parameters"], context: StudyContext
) -> Float[Tensor, "subsets test_rows"]:
    """Margins of the test rows under each model; nan under one that failed."""
    model, test = context.model, context.test_points
    return scored(
        lambda scores: model.margins(scores, test.labels),
        model,
        parameters,
        test,
        columns=(len(test.labels),),
    )


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


def bank_table(bank: MarginBank) -> pl.DataFrame:
    """A row per subset: weights (list), margins (list), converged."""
    return pl.DataFrame(
        {
            "weights": bank.weights.numpy(),
            "margins": bank.margins.numpy(),
            "converged": bank.converged.numpy(),
        }
    )


def write_bank(bank: MarginBank, path: Path) -> None:
    """Write `bank_table` as one Parquet file."""
    write_atomically(path, parquet_bytes(bank_table(bank)))


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
