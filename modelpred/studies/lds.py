"""The linear datamodelling score (LDS): how well methods rank the margins of single test rows.

Models of m random subsets of half of the points are retrained. For each test row, the score is
Spearman's correlation over subsets between its true and its predicted margin. The LDS is the mean
over test rows (Park et al. 2023, "TRAK"), with a 95% interval over test rows for these subsets.
Margins are predicted in two forms:

    direct     the margin of the refit's model of the subset
    additive   Σ_{i in subset} a[t, i], where a[t, i] = margin_t(all) - margin_t(all but i) by the
               refit, or an external attribution

An external attribution (TRAK, dattri, captum) is a matrix [test rows, points]; an entry is positive
if the point raises the margin of the test row. The retrained models are stored as a bank in a
Parquet file, which scores all methods: `modelpred lds FILE` scores a matrix in a file,
`score_attribution` one in memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Float64, UInt8
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.metrics import lds
from modelpred.numbers import Seed
from modelpred.refits.retraining import Refit
from modelpred.sealed import read_table, refuse
from modelpred.studies.context import StudyContext, finished, refitted, require_models, retrained
from modelpred.studies.matrix_files import in_rows
from modelpred.studies.results import StudyResult, study_again, written_number
from modelpred.targets.scoring import scored

STUDY = "lds"
AGAIN = study_again(STUDY)
FEWEST = 3  # subsets that can be ranked
LEFT_OUT = 1000  # points that are left out in one call, each alone
LDS_SCHEMA = {
    "method": pl.String, "form": pl.String, "lds": pl.Float64, "low": pl.Float64,
    "high": pl.Float64, "test_rows": pl.Int64, "subsets": pl.Int64,
}  # fmt: skip


class LdsConfig(BaseModel):
    """Section `lds` of params.yaml.

    Attributes:
        subsets: number of random subsets that are retrained.
        share: size of each subset, as a share of the points.
        seed: of the draws.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    subsets: int = Field(default=500, ge=FEWEST)
    share: float = Field(default=0.5, gt=0, lt=1)
    seed: Seed = 0


@dataclass(frozen=True)
class MarginBank:
    """Retrained subsets and the margins of the test rows under each.

    Attributes:
        weights: 0/1, [subsets, points].
        margins: [subsets, test rows]; nan if training did not converge.
        converged: whether training converged; other subsets are excluded from all scores.
    """

    weights: UInt8[Tensor, "subsets points"]
    margins: Float[Tensor, "subsets test_rows"]
    converged: Bool[Tensor, " subsets"]


def retrained_bank(config: LdsConfig, context: StudyContext) -> MarginBank:
    """The margins of models retrained on random subsets."""
    require_models(config.subsets, context, what="lds.subsets")
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
    """Return the LDS of every method.

    Tables:
        lds: method, form, lds, low, high (95%), test_rows, subsets.
        bank: the result of `margin_table`.
        order: split (pool or test), position and row_id of the columns of weights and margins.

    Args:
        config: the subsets to retrain.
        context: its refits are scored in both forms.
        attributions: external attributions [test rows, points], by name.
        bank: a bank from an earlier run; by default the models are retrained.

    Raises:
        InvalidInput: an attribution or the bank is for other rows.
    """
    truth = retrained_bank(config, context) if bank is None else _checked_bank(bank, context)
    for name in attributions or ():
        if name in context.refits:
            raise InvalidInput(f"attribution {name!r} has the name of a method; rename it")
    external = [
        score_attribution(truth, matrix, name=name) for name, matrix in (attributions or {}).items()
    ]
    converged = truth.converged
    if int(converged.sum()) < FEWEST:
        raise InvalidInput(
            f"training converged on {int(converged.sum())} of {len(converged)} subsets; expected "
            f"{FEWEST} or more: scale the features, or change targets.C, targets.tolerance or "
            "lds.subsets"
        )
    weights, margins = truth.weights[converged], truth.margins[converged]
    rows: list[dict[str, Any]] = []
    for done, (name, refit) in enumerate(context.refits.items(), start=1):
        direct = margins_of(refitted(refit, weights, context), context)
        additive = summed(weights, leave_one_out_effects(refit, context))
        rows += [_row(name, "direct", direct, margins), _row(name, "additive", additive, margins)]
        context.progress(done, len(context.refits), f"{STUDY}: {name}")
    rows += external
    metrics: dict[str, Any] = {row["method"]: {} for row in rows}
    for row in rows:
        metrics[row["method"]][row["form"]] = written_number(row["lds"])
    metrics |= {"subsets": len(converged), "not_converged": int((~converged).sum())}
    tables = {
        "lds": pl.DataFrame(rows, schema=LDS_SCHEMA),
        "bank": margin_table(truth),
        "order": _order(context),
    }
    return StudyResult(metrics, tables)


def score_attribution(
    bank: MarginBank, matrix: Tensor | NDArray[Any], *, name: str = "attribution"
) -> dict[str, Any]:
    """The row of the table `lds` for an external attribution.

    Args:
        bank: the retrained margins.
        matrix: [test rows, points], positive if the point raises the margin.
        name: name of the attribution.

    Raises:
        InvalidInput: the shape is not the bank's, or values are not finite.
    """
    values = _as_tensor(matrix, name)
    expected = [bank.margins.shape[1], bank.weights.shape[1]]
    if list(values.shape) != expected:
        hint = "; transpose it" if list(values.shape) == expected[::-1] else ""
        raise InvalidInput(
            f"attribution {name!r} has shape {list(values.shape)}, expected [test rows, points] = "
            f"{expected}{hint}"
        )
    if not bool(values.isfinite().all()):
        raise InvalidInput(f"attribution {name!r} has values that are not finite")
    used = bank.converged
    return _row(name, "additive", summed(bank.weights[used], values), bank.margins[used])


def _as_tensor(matrix: Tensor | NDArray[Any], name: str) -> Float64[Tensor, "..."]:
    """The matrix as a tensor; InvalidInput where it holds no numbers."""
    if isinstance(matrix, Tensor):
        if matrix.is_complex():
            raise InvalidInput(f"attribution {name!r} has complex values; expected real ones")
        return matrix.to(torch.float64)
    try:
        return torch.from_numpy(in_rows(np.asarray(matrix)))
    except TypeError as error:
        raise InvalidInput(f"attribution {name!r}: {error}; expected numbers") from error


def _row(method: str, form: str, predicted: Tensor, margins: Tensor) -> dict[str, Any]:
    # Rounded, so that equal models are ties and are not ranked by their rounding errors.
    scale = predicted.abs().max().clamp(min=torch.finfo(predicted.dtype).tiny)
    score = lds((predicted / scale).round(decimals=10), margins)
    return {
        "method": method, "form": form, "lds": score.mean, "low": score.low, "high": score.high,
        "test_rows": score.n, "subsets": len(margins),
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
    """Margins of the test rows by each model; nan for a failed model."""
    model, test = context.model, context.test_points
    return scored(
        lambda scores: model.margins(scores, test.labels),
        model,
        parameters,
        test,
        columns=(len(test.labels),),
    )


def leave_one_out_effects(refit: Refit, context: StudyContext) -> Float[Tensor, "test_rows points"]:
    """The margins with all points minus the margins without each point."""
    points = torch.arange(context.pool)
    all_points = torch.ones(1, context.pool, dtype=torch.uint8)
    whole = margins_of(refitted(refit, all_points, context), context)
    effects = whole.new_empty(whole.shape[1], context.pool)
    for block in points.split(LEFT_OUT):
        without = (block[:, None] != points).to(torch.uint8)
        effects[:, block] = (whole - margins_of(refitted(refit, without, context), context)).T
    return effects


def summed(
    weights: UInt8[Tensor, "subsets points"], attribution: Float[Tensor, "test_rows points"]
) -> Float[Tensor, "subsets test_rows"]:
    """Σ_i w_i a[t, i]: margins by an attribution, up to a constant for each test row."""
    return weights.to(attribution.dtype) @ attribution.T


def margin_table(bank: MarginBank) -> pl.DataFrame:
    """A row per subset: weights (list), margins (list), converged."""
    return pl.DataFrame(
        {
            "weights": bank.weights.numpy(),
            "margins": bank.margins.numpy(),
            "converged": bank.converged.numpy(),
        }
    )


def read_margins(path: Path) -> MarginBank:
    """The bank that the study wrote there.

    Raises:
        InvalidInput: the file is missing, damaged or no bank.
    """
    table = read_table(path, again=AGAIN)
    try:
        bank = MarginBank(
            torch.from_numpy(table["weights"].to_numpy(writable=True).astype(np.uint8)),
            torch.from_numpy(table["margins"].to_numpy(writable=True).astype(np.float64)),
            torch.from_numpy(table["converged"].to_numpy(writable=True).astype(np.bool_)),
        )
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        raise refuse(path, f"it is no bank of margins ({error})", again=AGAIN) from error
    shapes = (bank.weights.ndim, bank.margins.ndim, bank.converged.ndim)
    if shapes != (2, 2, 1) or not _varies(bank.margins[bank.converged]):
        raise refuse(path, "it has no margins that vary over the subsets", again=AGAIN)
    return bank


def _varies(margins: Tensor) -> bool:
    """Whether a test row's margin is not the same in all subsets."""
    return len(margins) > 1 and bool((margins != margins[0]).any())


def read_scores(path: Path) -> pl.DataFrame:
    """The scores of the study's own methods that it wrote there.

    Raises:
        InvalidInput: the file is missing, damaged or no table of scores.
    """
    table = read_table(path, again=AGAIN)
    if dict(table.schema) != LDS_SCHEMA or any(table.null_count().row(0)):
        raise refuse(path, f"it is no table of {', '.join(LDS_SCHEMA)}", again=AGAIN)
    return table


def _checked_bank(bank: MarginBank, context: StudyContext) -> MarginBank:
    expected = (len(bank.weights), context.pool, len(context.test_points.labels))
    actual = (len(bank.margins), bank.weights.shape[1], bank.margins.shape[1])
    if actual != expected:
        raise InvalidInput(
            f"the bank has (subsets, points, test rows) {actual}, expected {expected}; "
            "was it retrained for another data set?"
        )
    return bank
