"""One subset's optimum to more digits than float64 has, by another way than the package's.

Newton's method with gradients in NumPy's longdouble, halving steps while the gradient does not fall:
slow, unbatched, and without any rule of scale.
"""

import numpy as np

Long = np.longdouble


def _terms(family, scores, labels):
    """Slopes [points, outputs] and curvatures [points, outputs, outputs] of the loss."""
    if family == "ridge":
        return scores - labels[:, None], np.ones((len(scores), 1, 1), Long)
    if family == "logistic":
        sign = Long(2) * labels[:, None] - 1
        wrong = 1 / (1 + np.exp(sign * scores))  # not 1 - right: that has no digits below rounding
        return -sign * wrong, (wrong / (1 + np.exp(-sign * scores)))[:, :, None]
    if family == "svm":
        sign = Long(2) * labels[:, None] - 1
        lack = np.maximum(1 - sign * scores, 0)
        return -2 * sign * lack, 2 * (lack > 0).astype(Long)[:, :, None]
    odds = np.exp(scores - scores.max(1, keepdims=True))
    chance = odds / odds.sum(1, keepdims=True)
    own = np.eye(chance.shape[1], dtype=bool)[labels]
    slopes = np.where(own, 0, chance)
    curvature = -chance[:, :, None] * chance[:, None]
    for each in range(chance.shape[1]):  # sums of the others, for the same reason
        curvature[:, each, each] = 0
        curvature[:, each, each] = -curvature[:, each].sum(1)
    return slopes - own * slopes.sum(1, keepdims=True), curvature


def optimum(family, features, labels, scale, *, outputs=1, steps=200):
    """Parameters [outputs, features + 1] for terms weighted by `scale` (C times weights)."""
    design = np.column_stack([features, np.ones(len(features))]).astype(Long)
    penalty = np.ones(design.shape[1], Long)
    penalty[-1] = family == "svm"
    scale, labels = np.asarray(scale, Long), np.asarray(labels)
    labels = labels.astype(Long) if family == "ridge" else labels
    theta = np.zeros((outputs, design.shape[1]), Long)

    def slopes_at(theta):
        with np.errstate(over="ignore"):  # a probability of zero
            slopes, curvature = _terms(family, design @ theta.T, labels)
        return (slopes * scale[:, None]).T @ design + penalty * theta, curvature

    gradient, curvature = slopes_at(theta)
    for _ in range(steps):
        hessian = np.einsum("n,nkl,ni,nj->kilj", scale, curvature, design, design, optimize=True)
        hessian = hessian.reshape(theta.size, theta.size) + np.diag(np.tile(penalty, outputs))
        if family == "softmax":  # equal shifts of all outputs, zero at the optimum, stay zero
            shift = np.tile(np.eye(design.shape[1]), (outputs, 1))
            hessian = hessian + shift @ shift.T * hessian.diagonal().max()
        step = _solved(hessian, gradient.ravel()).reshape(theta.shape)
        for _ in range(60):
            after, bent = slopes_at(theta - step)
            if (after * step).sum() >= -abs((gradient * step).sum()) / 2:
                break
            step = step / 2
        else:
            raise ArithmeticError("no step descends: that needs more digits")
        theta, moved = theta - step, np.abs(step)
        gradient, curvature = after, bent
        if moved.max() <= 1e-14 * np.abs(theta).max():
            return theta
    raise ArithmeticError("no optimum within so many steps")


def intercept_size(family, features, labels, scale, exact):
    """A thousandth of what the intercept would be if all terms of its gradient had one sign.

    Its size counts as so much at least: it is zero where both classes have the same weight.
    """
    scale, labels = np.asarray(scale, Long), np.asarray(labels)
    scores = np.column_stack([features, np.ones(len(features))]).astype(Long) @ exact.T
    slopes, curvature = _terms(family, scores, labels)
    stiffness = scale @ np.diagonal(curvature, axis1=1, axis2=2) + (family == "svm")
    return float((scale @ np.abs(slopes) / stiffness).max()) / 1000


def distance(parameters, exact, features, *, intercept=0.0):
    """How far parameters are from the optimum's, as `train_targets` states it.

    Args:
        parameters: of one subset.
        exact: the optimum's.
        features: of all points.
        intercept: what the intercepts' size is at least.
    """
    if len(exact) > 1:
        exact = np.column_stack([exact[:, :-1], exact[:, -1] - exact[:, -1].mean()])
    moved = np.asarray(parameters, Long).reshape(exact.shape) - exact
    columns = np.sqrt((np.asarray(features, Long) ** 2).sum(0))
    parts = [
        (moved[:, :-1], exact[:, :-1]),
        (moved[:, :-1] * columns, exact[:, :-1] * columns),
        (moved[:, -1], np.maximum(np.sqrt((exact**2).sum()), intercept)),
    ]
    return max(float(np.sqrt((move**2).sum() / (size**2).sum())) for move, size in parts)


def _solved(matrix, right):
    """matrix^-1 right in longdouble, by Gauss with pivots on a matrix scaled to a diagonal of ones."""
    size = 1 / np.sqrt(np.maximum(matrix.diagonal(), Long(1e-4000)))
    table = np.column_stack([matrix * size * size[:, None], right * size])
    for row in range(len(right)):
        pivot = row + int(np.abs(table[row:, row]).argmax())
        table[[row, pivot]] = table[[pivot, row]]
        if table[row, row] == 0:
            raise ArithmeticError("no pivot: that needs more digits")
        table[row] /= table[row, row]
        others = np.arange(len(right)) != row
        table[others] -= np.outer(table[others, row], table[row])
    return table[:, -1] * size
