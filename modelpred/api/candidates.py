"""Candidate rows, ordered by the gain of adding each alone."""

from collections.abc import Callable

import numpy as np
import polars as pl
import torch
from torch import Tensor

from modelpred.api.edits import ids_with
from modelpred.api.files import Fitted
from modelpred.api.inputs import ArrayLike, RowNames
from modelpred.engine import EngineChoice
from modelpred.predictor import Refined
from modelpred.refits import Progress, Refit, Retraining
from modelpred.studies.utility import utilities_of
from modelpred.targets import Points, TargetModel

BLOCK = 250  # candidates whose models are found at once


def ranked_candidates(
    fitted: Fitted,
    candidates: tuple[ArrayLike, ArrayLike],
    validation: Points,
    *,
    ids: RowNames | None,
    choice: EngineChoice,
    progress: Progress,
) -> pl.DataFrame:
    """Return the candidates, the most useful first: row_id, position, label, gain.

    Args:
        fitted: the fit.
        candidates: rows with their labels, unscaled, with the columns of the fit.
        validation: the rows to score models on.
        ids: names of the candidates; by default new-0, new-1, ...
        choice: the engine.
        progress: called with (done, total, what).
    """
    problem, reading = fitted.problem, fitted.reading
    new = reading.points(*candidates, what="_new")
    count, pool = len(new.labels), problem.points.joined(new)
    row_ids = ids_with(problem.row_ids, candidates[0], ids, rows=count)
    model, refit = _refit(fitted, pool, validation, row_ids, choice=choice)
    old = len(problem.row_ids)

    def utility(weights: Tensor) -> Tensor:
        parameters = model.with_prior(refit(weights), weights.double(), pool)
        return utilities_of(model, parameters, validation, utility="loss")

    gains = _gains(utility, old, count, progress=progress)
    table = pl.DataFrame(
        {
            "row_id": list(row_ids[old:]),
            "position": np.arange(count),
            "label": reading.labels.decode(new.labels),
            "gain": gains,
        }
    )
    return table.with_columns(pl.col("gain").fill_nan(None)).sort(
        "gain", descending=True, nulls_last=True, maintain_order=True
    )


def _refit(
    fitted: Fitted,
    pool: Points,
    validation: Points,
    row_ids: tuple[str, ...],
    *,
    choice: EngineChoice,
) -> tuple[TargetModel, Refit]:
    """The family and the refit for the pool with the candidates."""
    if choice.exact:
        model = fitted.problem.model.for_rows(pool, validation)
        return model, Retraining(model, pool, tolerance=fitted.problem.tolerance)
    predictor = fitted.engine.predictor.for_points(pool, row_ids=row_ids)
    return predictor.model, Refined(predictor, choice.refine) if choice.refine else predictor


def _gains(
    utility: Callable[[Tensor], Tensor], old: int, count: int, *, progress: Progress
) -> np.ndarray:
    """Utility with each candidate minus the utility of the training rows; nan if a model failed."""
    alone = torch.cat([torch.ones(1, old), torch.zeros(1, count)], 1).to(torch.uint8)
    before = utility(alone)
    found: list[Tensor] = []
    for block in torch.arange(count).split(BLOCK):
        weights = alone.repeat(len(block), 1)
        weights[torch.arange(len(block)), old + block] = 1
        found.append(utility(weights) - before)
        progress(int(block[-1]) + 1, count, "candidates")
    return torch.cat(found).numpy()
