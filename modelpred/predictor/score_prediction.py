"""Scores of test rows as a function of the weights, learned from retrainings and from gradients.

    m_t(w) = c_t + sum_i w_i a[t, i],     a[t] ~ Normal(0, K),    K = (1 - gamma) I + gamma G

G is the kernel of the rows' gradient features: rows with like gradients have like effects. The posterior mean
needs products of subsets only, C = W K W':

    m_t(w) = mean + C(w, W) (C + lambda)^-1 (M_t - mean)

so that a[t] is a sum of W K over subsets. The factors of these sums need less memory than a, if there are fewer
subsets than points. gamma and lambda are chosen by the error on held-out subsets; gamma = 0 is the linear
datamodel of scores.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

FOLDS = 5
KERNELS = (0.0, 0.5, 0.9, 0.99)
CHOOSING = 512  # scores by which gamma and lambda are chosen, of more
PENALTIES = tuple(float(value) for value in np.logspace(-3, 2, 11))


@dataclass(frozen=True)
class ScorePredictor:
    """Predicts scores [subsets, test rows] from weights [subsets, points].

    Attributes:
        gamma: share of the gradient kernel.
        penalty: lambda, as a multiple of the mean diagonal of C.
        directions: W K; the identity, if there are fewer points than subsets.
        coefficients: a, as sums of these.
        weights: mean of the weights.
        scores: mean of the scores.
    """

    gamma: float
    penalty: float
    directions: Float[Tensor, "directions points"]
    coefficients: Float[Tensor, "directions test_rows"]
    weights: Float[Tensor, " points"]
    scores: Float[Tensor, " test_rows"]

    def __call__(
        self, weights: Num[Tensor, "subsets points"]
    ) -> Float[Tensor, "subsets test_rows"]:
        """Predicted scores."""
        changes = weights.to(self.directions) - self.weights
        return torch.addmm(self.scores, changes @ self.directions.T, self.coefficients)


def fit_scores(
    weights: Num[Tensor, "subsets points"],
    scores: Float[Tensor, "subsets test_rows"],
    *,
    features: Float[Tensor, "points dimensions"] | None = None,
) -> ScorePredictor:
    """The predictor fitted to the scores of retrained subsets.

    Args:
        weights: of the subsets.
        scores: of the test rows under each subset's models.
        features: gradient features of the rows; None: no kernel.
    """
    weights = weights.to(torch.float64)
    if features is not None:
        features = features / features.square().sum(1).mean().sqrt()
    scores = scores.to(torch.float64)
    options = itertools.product(
        KERNELS if features is not None else KERNELS[:1],
        PENALTIES,
    )
    folds = torch.arange(len(weights)) % FOLDS
    some = scores[:, :: -(-scores.shape[1] // CHOOSING)]

    def error(option: tuple[float, float]) -> float:
        total = 0.0
        for held in (folds == fold for fold in range(FOLDS)):
            fitted = _fitted(weights[~held], some[~held], features, option)
            total += float((fitted(weights[held]) - some[held]).square().sum())
        return total

    return _fitted(weights, scores, features, min(options, key=error))


def _fitted(
    weights: Tensor,
    scores: Tensor,
    features: Tensor | None,
    strengths: tuple[float, float],
) -> ScorePredictor:
    gamma, penalty = strengths
    centre, mean = weights.mean(0), scores.mean(0)
    rows, targets = weights - centre, scores - mean
    carried = (1 - gamma) * rows  # W K
    if features is not None and gamma:
        carried = carried + gamma * (rows @ features) @ features.T
    products = carried @ rows.T
    products.diagonal().add_(penalty * products.diagonal().mean())
    solved = torch.linalg.solve(products, targets)
    if len(solved) > len(centre):
        carried, solved = torch.eye(len(centre)).to(solved), carried.T @ solved
    # In the layout in which they are read again, as products of another layout round differently.
    factors = carried.contiguous(), solved.contiguous()
    return ScorePredictor(gamma, penalty, *factors, centre, mean)
