"""Scores of subsets from what gradients say of them, fitted to the scores of retrained subsets.

    m_t(w) = mean_t + sum over k of beta_k s_k[w, t] + C(w, W) (C(W, W) + lambda)^-1 (what is left of M_t)

where s_k are sums such as those of subset_influence.py, with one beta for all test rows, and C products of subsets
by (1 - gamma) I + gamma G. It is the model of score_prediction.py without its slopes, so that the sums need not
be linear in the weights.
"""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelpred.predictor.score_prediction import FOLDS, KERNELS, PENALTIES


def subset_scores(
    sums: Sequence[Float[Tensor, "subsets test_rows"]],
    linear: Float[Tensor, "subsets subsets"],
    kernel: Float[Tensor, "subsets subsets"] | None,
    known: Float[Tensor, "fit test_rows"],
    *,
    folds: Int[Tensor, " fit"] | None = None,
) -> Float[Tensor, "others test_rows"]:
    """Scores of the subsets that follow the first, which are retrained.

    gamma, lambda and whether the betas are zero are chosen by the error on held-out subsets.

    Args:
        sums: s_k; empty: none.
        linear: products of the weights.
        kernel: products by G; None: gamma is zero.
        known: scores of the first subsets.
        folds: the part, 0 to FOLDS - 1, in which each of them is held out; None: in turn.
    """
    count, every = len(known), torch.arange(len(linear))
    known, sums = known.to(torch.float64), [each.to(torch.float64) for each in sums]
    fit = every[:count]
    linear = _scaled(linear, fit)
    kernel = None if kernel is None else _scaled(kernel, fit)

    def predicted(option: tuple[float, float, bool], rows: Tensor, others: Tensor) -> Tensor:
        gamma, penalty, with_sums = option
        mean = known[rows].mean(0)
        left, carried = known[rows] - mean, mean.expand(len(others), -1)
        if with_sums:
            own = torch.stack([each - each[rows].mean(0) for each in sums])
            flat = own[:, rows].flatten(1)
            betas = torch.linalg.pinv(flat @ flat.T, hermitian=True) @ (flat @ left.flatten())
            fitted = torch.einsum("k,kst->st", betas, own)
            left, carried = left - fitted[rows], carried + fitted[others]
        products = linear if kernel is None else (1 - gamma) * linear + gamma * kernel
        products = _centred(products, rows)
        inner = products[rows][:, rows]
        inner.diagonal().add_(penalty * inner.diagonal().mean())
        return carried + products[others][:, rows] @ torch.linalg.solve(inner, left)

    folds = fit % FOLDS if folds is None else folds
    parts = [(fit[folds != fold], fit[folds == fold]) for fold in range(FOLDS)]

    def error(option: tuple[float, float, bool]) -> float:
        held = ((predicted(option, rows, others) - known[others]) for rows, others in parts)
        return sum(float(each.square().sum()) for each in held)

    options = itertools.product(
        KERNELS if kernel is not None else KERNELS[:1],
        PENALTIES,
        (False, True) if sums else (False,),
    )
    return predicted(min(options, key=error), fit, every[count:])


def _centred(products: Tensor, rows: Tensor) -> Tensor:
    """Products of what subsets have less the mean of that of `rows`."""
    left = products - products[rows].mean(0)
    return left - left[:, rows].mean(1, keepdim=True)


def _scaled(products: Tensor, rows: Tensor) -> Tensor:
    """Centred products, whose diagonal has mean one on `rows`."""
    found = _centred(products.to(torch.float64), rows)
    return found / found.diagonal()[rows].mean()
