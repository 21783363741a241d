"""Selects k of N rows for a family with an optimum, from some tens of trained models.

*The goal.* A model of rows that are selected by few validation rows alone over-fits these. Rows are
therefore selected by a larger sample, `judging_points`: the validation rows, and all rows of the pool
with a weight a. The weight, from `POOL_WEIGHTS`, is the one whose model has the least loss on held-out
validation rows: near 1 for a clean pool, small for one with many wrong labels. With J the objective
of this sample, a selection S is good if J is low at the model theta of S.

*The search* starts from all rows and removes the least useful ones. With H the Hessian of S at theta
and g_i the gradient of row i, removing a set R moves the parameters by about d, the sum of H^-1 g_i
over R, and J by

    j' d + d' V d / 2        j, V: gradient and Hessian of J at theta

The rows of the least change are removed in small batches, and d is updated after each one: rows whose
effects cancel can go together, while the rows of the lowest values all move the model the same way.
After some batches the model is trained again. If J has not changed as predicted, the batches are
undone and fewer are removed before the next training.

Measured in docs/values.md. Coresets by gradients: Mirzasoleiman, Bilmes and Leskovec, "Coresets for
data-efficient training of machine learning models", ICML 2020 (other objective and search).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelpred.memory import require_memory
from modelpred.refits.retraining import Retraining
from modelpred.studies.greedy_selection import Quota, allowed, require_sizes
from modelpred.studies.sampling import UndefinedUtility
from modelpred.targets.points import Points
from modelpred.targets.scoring import mean_test_losses

POOL_WEIGHTS = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0)
FOLDS = 5
BATCHES = 64  # between two trainings
STRETCH = 16.0  # of the remaining rows, one in so many is removed before the first training
MOST, LEAST = 6.0, 128.0  # bounds of it
TRUST = 0.25  # largest error of the predicted change of J, as a share of it
NEGLIGIBLE = 0.002  # share of J; errors of smaller changes are compared with this share
RIDGE = 1e-9  # of the mean diagonal of H, for directions that neither data nor penalty determine


def judging_points(
    truth: Retraining, validation: Points, *, generator: np.random.Generator
) -> Points:
    """Return the validation rows and the rows of the pool, with the weight that validates best.

    Args:
        truth: trains models of the pool.
        validation: rows to select by.
        generator: draws the folds.
    """
    count = len(validation.labels)
    fold = torch.from_numpy(generator.permutation(count) % FOLDS)
    losses = [
        sum(_held_out_loss(truth, validation, share, fold == part) for part in fold.unique())
        for share in POOL_WEIGHTS
    ]
    best = int(np.nan_to_num(losses, nan=np.inf).argmin())
    return _sample(truth.points, validation, POOL_WEIGHTS[best])


def _sample(pool: Points, validation: Points, share: float) -> Points:
    return replace(pool, sample_weight=share * pool.factors).joined(validation)


def _held_out_loss(
    truth: Retraining, validation: Points, share: float, out: Bool[Tensor, " rows"]
) -> float:
    """Sum of the losses of these validation rows by the model of the pool and the others."""
    sample = _sample(truth.points, validation.take((~out).nonzero()[:, 0]), share)
    parameters = truth.for_points(sample)(torch.ones(1, len(sample.labels)))
    held_out = validation.take(out.nonzero()[:, 0])
    return float(mean_test_losses(truth.model, parameters, held_out)[0]) * len(held_out.labels)


def selections(
    truth: Retraining, judge: Points, *, sizes: Sequence[int], quota: Quota
) -> dict[int, Bool[Tensor, " points"]]:
    """Return nested selections of all sizes.

    Args:
        truth: trains models of a family with an optimum.
        judge: the sample on which the objective is to be low.
        sizes: numbers of rows.
        quota: guaranteed rows of each group.

    Raises:
        InvalidInput: a size is out of range, or there is too little memory.
        UndefinedUtility: the model of all rows, or those of all further removals, failed.
    """
    points = len(quota.group)
    require_sizes(sizes, points)
    state = _State.of(truth, judge, torch.ones(points, dtype=torch.bool))
    parameters = len(state.parameters)
    require_memory(28 * points * parameters, what=f"selection: gradients of {points:,} rows")
    found: dict[int, Tensor] = {}
    stretch = STRETCH
    for target in sorted(set(sizes), reverse=True):
        while int(state.selected.sum()) > target:
            state, stretch = _shortened(truth, judge, state, target, quota, stretch)
        found[target] = state.selected
    return found


@dataclass(frozen=True)
class _State:
    """A selection with its trained parameters, and J there."""

    selected: Bool[Tensor, " points"]
    parameters: Float[Tensor, " parameters"]
    objective: float

    @staticmethod
    def of(truth: Retraining, judge: Points, selected: Tensor) -> "_State":
        parameters = truth(selected[None].to(torch.uint8))
        ones = parameters.new_ones(1, len(judge.labels))
        return _State(
            selected, parameters[0], float(truth.model.objective(parameters, ones, judge)[0])
        )


@dataclass(frozen=True)
class _Expansion:
    """Second-order effects of removing each selected row.

    Attributes:
        members: positions of the rows.
        moves: H^-1 g_i of each row.
        slope: j.
        curvature: V.
    """

    members: Int[Tensor, " members"]
    moves: Float[Tensor, "members parameters"]
    slope: Float[Tensor, " parameters"]
    curvature: Float[Tensor, "parameters parameters"]


def _shortened(  # noqa: PLR0917 - the state of the search
    truth: Retraining, judge: Points, state: _State, target: int, quota: Quota, stretch: float
) -> tuple[_State, float]:
    """Return the state after some removals, and the share to remove next, one in `stretch` rows."""
    left = int(state.selected.sum())
    if not np.isfinite(state.objective):
        raise UndefinedUtility(
            f"the model of {left} selected rows failed; let training converge (scale the features, "
            "targets.C, targets.tolerance)"
        )
    expansion = _expanded(truth, judge, state)
    while True:
        count = min(max(1, int(left / stretch)), left - target)
        selected, predicted = _without(expansion, state.selected, count, quota)
        after = _State.of(truth, judge, selected)
        error = abs(after.objective - state.objective - predicted)
        bound = TRUST * max(abs(predicted), NEGLIGIBLE * abs(state.objective))
        if error <= bound or count == 1 or stretch >= LEAST:
            break
        stretch = min(LEAST, 2 * stretch)
    return after, max(MOST, stretch / 1.4) if error <= bound / 2 else stretch


def _expanded(truth: Retraining, judge: Points, state: _State) -> _Expansion:
    model, points, parameters = truth.model, truth.points, state.parameters
    members = state.selected.nonzero()[:, 0]
    hessian = model.hessian(parameters, state.selected.to(parameters), points)
    hessian.diagonal().add_(RIDGE * hessian.diagonal().mean())
    gradients = model.point_gradients(parameters, points.take(members))
    ones = parameters.new_ones(1, len(judge.labels))
    return _Expansion(
        members,
        torch.linalg.solve(hessian, gradients.T).T,
        model.gradient(parameters[None], ones, judge)[0],
        model.hessian(parameters, ones[0], judge),
    )


def _without(
    expansion: _Expansion, selected: Tensor, count: int, quota: Quota
) -> tuple[Bool[Tensor, " points"], float]:
    """The selection after so many removals in batches, and the predicted change of J."""
    selected = selected.clone()
    moves, curvature = expansion.moves.float(), expansion.curvature.float()
    own = ((moves @ curvature) * moves).sum(1) / 2
    moved = torch.zeros_like(expansion.slope)
    left, end = len(moves), len(moves) - count
    while left > end:
        removed = min(max(1, count // BATCHES), left - end)
        changes = moves @ (expansion.slope + expansion.curvature @ moved).float() + own
        changes[~selected[expansion.members]] = torch.inf
        free = quota.members(selected) - quota.guaranteed(left - removed)
        order = changes.argsort(stable=True)[:left]
        rows = allowed(expansion.members[order], removed, free=free, quota=quota)
        selected[rows] = False
        places = torch.searchsorted(expansion.members, rows)
        moved = moved + expansion.moves[places].sum(0)
        left -= removed
    predicted = expansion.slope @ moved + moved @ expansion.curvature @ moved / 2
    return selected, float(predicted)
