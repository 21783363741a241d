"""How far parameters can be from a subset's optimum, from one gradient and without retraining.

Every linear family has F(c, b) = 1/2 ||c||^2 + C sum_i w_i loss_i(scores), convex in coefficients c
and intercepts b together. Where the intercepts are penalised like the coefficients (svm), F is
1-strongly convex and ||theta_hat - theta|| <= ||grad F(theta_hat)||: that is all.

*Free intercepts are profiled out.* f(c) = min_b F(c, b) is 1/2 ||c||^2 plus a partial minimum of a
jointly convex function, so it is 1-strongly convex, and its gradient is grad_c F at the best
intercepts b(c). Hence ||c_hat - c*|| <= e := ||grad_c F(c_hat, b(c_hat))||. What is left is how far
the best intercepts move, ||b(c_hat) - b(c*)||, while the coefficients move by at most e.

*Their move, everywhere.* The best intercepts make the weighted sum of each output's slopes zero; for
classes: the expected count of each class is its count. Let rows reach at most ||x_i|| <= R. With
one output the score of no row moves by more than e R, so b moves by at most e R (else every slope
would have changed to one side). With K outputs let beta be the move, D = sqrt(2) e R the most that
two scores of a row are moved apart, and S the classes of the r largest beta. If beta fell by more
than D behind its r-th largest, the odds of S would rise in every row and the expected count of S
with them, which is fixed. So neighbours in the order of beta are at most D apart, all of beta at
most (K - 1) D, and, with zero mean, ||beta|| <= (K - 1) D sqrt(K) / 2.

*Their move, nearby.* Let J_i be the second derivative of row i's loss in its scores. For logistic
and softmax it is self-concordant (Bach 2010; Sun and Tran-Dinh 2019): when the scores of a row move
apart by s, J_i stays within exp(-s) and exp(s) of what it was, since the third derivative of
logsumexp along u, v, v is E[(u - Eu)(v - Ev)^2] <= (max u - min u) Var v. Along the straight way
from c_hat to c* the best intercepts obey L b' = -B c' with L = C sum_i w_i J_i and
B = C sum_i w_i J_i (x) x_i'. As long as no row's scores move apart by more than s,

    ||b'|| <= e g(s),   g(s) = exp(s) (||B|| + (exp(s) - 1) sqrt(l_max V)) / l_min,

where l are the eigenvalues of L (without that of equal shifts), V = sum_i C w_i j_i ||x_i||^2 and
j_i >= ||J_i||: |u' (J' - J) v| <= (exp(s) - 1) sqrt(u'Ju v'Jv). And they do not move apart further
if sqrt(2) e (R + g(s)) <= s: the least such s is found from below, and where there is none the
bound above is kept. With one output sqrt(2) is 1; for ridge J is constant, s = 0, and the bound is
exact in the direction that matters.

Rounding is added on top. Nothing is estimated, so the bound holds on every subset with an optimum;
the others get infinity.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from modelpred.targets.points import Points, class_counts
from modelpred.targets.score_loss import ScoreLoss
from modelpred.targets.shapes import Parameters, Weights

PROFILE_STEPS = 60  # Newton steps for the best intercepts; two to five are usual
PROFILED = 1e-11  # their gradient, relative to the total weight, at which they are found
SWING_STEPS = 8  # of the search for s
LARGEST_SWING = 3.0  # beyond it exp(s) makes the local bound worse than the other
ROUNDING = 1e-9
BLOCK_BYTES = 2**19  # scores of the subsets bounded at once: they stay in a core's cache
FEWEST = 16


def distance_bound(
    model: ScoreLoss, parameters: Parameters, weights: Weights, points: Points
) -> Float[Tensor, " subsets"]:
    """Upper bound on the distance of the parameters to each subset's optimum (module's text).

    Args:
        model: a linear family.
        parameters: float64.
        weights: float64.
        points: the pool, float64.
    """
    if model.intercept_penalty:
        bound = model.gradient(parameters, weights, points).norm(dim=1)
    else:
        scores = points.features.shape[0] * parameters.shape[1] // (points.features.shape[1] + 1)
        rows = max(FEWEST, BLOCK_BYTES // (8 * scores))
        blocks = zip(parameters.split(rows), weights.split(rows), strict=True)
        bound = torch.cat([_profiled(model, *block, points) for block in blocks])
    bound = bound * (1 + ROUNDING) + ROUNDING * (1 + parameters.norm(dim=1))
    return torch.where(model.without_optimum(class_counts(weights, points)), math.inf, bound)


def _profiled(model: ScoreLoss, parameters: Tensor, weights: Tensor, points: Points) -> Tensor:
    """sqrt(e^2 + (way to the best intercepts + their move)^2)."""
    features = points.features
    theta = parameters.unflatten(1, (-1, features.shape[1] + 1)).transpose(0, 1)
    coefficients, given = theta[..., :-1], theta[..., -1]
    scale = model.C * points.weighted(weights)
    moved = coefficients @ features.T
    best, left = _best_intercepts(model, moved, given, scale, points)
    scores = moved + best[..., None]
    slopes = model.score_slopes(scores, points.labels) * scale
    error = ((slopes @ features) + coefficients).square().sum((0, 2)).sqrt()
    curvature = model.score_curvature(scores, points.labels, scale)
    stiffness, coupling = _intercept_curvature(model, curvature, features)
    least, most = _extremes(stiffness, shift_free=model.shift_free)
    # The best intercepts are found up to a gradient: twice its Newton step covers what is left, as
    # long as that step is short (self-concordance again); where it is not, nothing is known.
    missing = 2 * left / least
    found = missing * model.curvature_drift < 1e-3
    row_norms = features.norm(dim=1)
    reach = torch.where(weights > 0, row_norms, 0.0).amax(1)
    spread = (most * (curvature[0].sum(0) @ row_norms.square())).sqrt()
    error = error + missing * (coupling + spread)
    local = _local_move(
        model, error, reach=reach, coupling=coupling, spread=spread, least=least,
        outputs=len(given),
    )  # fmt: skip
    move = torch.minimum(local, _global_move(model, error, reach, outputs=len(given)))
    if model.shift_free:
        best = best - best.mean(0)
    intercepts = (given - best).norm(dim=0) + missing + move
    return torch.where(found, (error.square() + intercepts.square()).sqrt(), math.inf)


def _best_intercepts(
    model: ScoreLoss, moved: Tensor, start: Tensor, scale: Tensor, points: Points
) -> tuple[Tensor, Tensor]:
    """argmin_b F(c, b) [outputs, subsets], and the norm of the gradient in b that is left.

    Newton's method; a step that moves scores apart by d is cut to log(1 + d) / d of itself, which
    lowers a self-concordant function from anywhere (Sun and Tran-Dinh 2019).
    """
    best, goal = start, PROFILED * (1 + scale.sum(1))
    for _ in range(PROFILE_STEPS):
        scores = moved + best[..., None]
        gradient = (model.score_slopes(scores, points.labels) * scale).sum(2)
        if bool((gradient.norm(dim=0) <= goal).all()):
            return best, gradient.norm(dim=0)
        curvature = model.score_curvature(scores, points.labels, scale)
        step = _newton_step(_stiffness(model, curvature), gradient, shift_free=model.shift_free)
        drift = model.curvature_drift * (step.amax(0) - step.amin(0) if len(step) > 1 else step[0])
        drift = drift.abs().clamp(min=1e-9)
        share = torch.where(drift > 1e-8, drift.log1p() / drift, 1.0)
        best = best - share * step
    scores = moved + best[..., None]
    return best, (model.score_slopes(scores, points.labels) * scale).sum(2).norm(dim=0)


def _newton_step(stiffness: Tensor, gradient: Tensor, *, shift_free: bool) -> Tensor:
    """L^-1 g, [outputs, subsets]; equal shifts of several outputs, which change nothing, stay."""
    outputs = len(gradient)
    if outputs == 1:
        return gradient / stiffness[:, 0, 0].clamp(min=1e-30)
    if not shift_free:
        return torch.linalg.solve(stiffness, gradient.T).T
    size = stiffness.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    eye = torch.eye(outputs).to(stiffness)
    lifted = stiffness + size / outputs + (1e-12 * size + 1e-30) * eye
    return torch.linalg.solve(lifted, gradient.T).T


def _stiffness(model: ScoreLoss, curvature: tuple[Tensor, ...]) -> Tensor:
    """L, [subsets, outputs, outputs]."""
    outputs = len(curvature[0])
    if outputs == 1:
        return curvature[0][0].sum(1)[:, None, None]
    columns: list[Tensor] = []
    for output in range(outputs):
        unit = torch.zeros_like(curvature[0])
        unit[output] = 1
        columns.append(model.curvature_product(curvature, unit).sum(2).T)
    return torch.stack(columns, 2)


def _intercept_curvature(
    model: ScoreLoss, curvature: tuple[Tensor, ...], features: Tensor
) -> tuple[Tensor, Tensor]:
    """L [subsets, outputs, outputs] and the Frobenius norm of B [subsets]."""
    columns: list[Tensor] = []
    square = features.new_zeros(curvature[0].shape[1])
    for output in range(len(curvature[0])):
        unit = torch.zeros_like(curvature[0])
        unit[output] = 1
        row = model.curvature_product(curvature, unit)
        columns.append(row.sum(2).T)
        square = square + (row @ features).square().sum((0, 2))
    return torch.stack(columns, 2), square.sqrt()


def _extremes(stiffness: Tensor, *, shift_free: bool) -> tuple[Tensor, Tensor]:
    """Smallest and largest eigenvalue of L, without that of equal shifts that change nothing."""
    if stiffness.shape[1] == 1:
        only = stiffness[:, 0, 0].clamp(min=1e-300)
        return only, only
    values = torch.linalg.eigvalsh(stiffness)
    return values[:, int(shift_free)].clamp(min=1e-300), values[:, -1]


def _local_move(
    model: ScoreLoss,
    error: Tensor,
    *,
    reach: Tensor,
    coupling: Tensor,
    spread: Tensor,
    least: Tensor,
    outputs: int,
) -> Tensor:
    """Local bound e g(s) for the least s that covers itself; infinity where none was found."""

    def rate(swing: Tensor) -> Tensor:
        return swing.exp() * (coupling + swing.expm1() * spread) / least

    if not model.curvature_drift:
        return error * coupling / least
    drift = model.curvature_drift * (math.sqrt(2) if outputs > 1 else 1.0) * error
    swing = torch.zeros_like(error)
    for _ in range(SWING_STEPS):
        swing = (drift * (reach + rate(swing))).clamp(max=LARGEST_SWING)
    swing = 1.05 * swing  # the search ends just below the least s
    covers = drift * (reach + rate(swing)) <= swing
    return torch.where(covers, error * rate(swing), math.inf)


def _global_move(model: ScoreLoss, error: Tensor, reach: Tensor, *, outputs: int) -> Tensor:
    """Global bound e R, or for several outputs (K - 1) sqrt(2) e R sqrt(K) / 2."""
    if outputs == 1 or not model.curvature_drift:
        return error * reach
    return (outputs - 1) * math.sqrt(outputs / 2) * reach * error
