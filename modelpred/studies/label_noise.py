"""Estimates how many labels are wrong, and which, from held-out probabilities.

Let q_k be the probability of class k by models that were not trained on a row. The labels of the
table are those that the models learned from, wrong ones included. The model of them is

    p          = softmax(a_k log q_k + b_k)                    the probability of the true class
    P(label j) = (1 - e_j) p_j + sum over k != j of e_k p_k / (K - 1)

with e_k the share of the rows of class k that have another label, which is any of the others. a, b
and e maximise the likelihood. What identifies e are the rows on which models are sure: without wrong
labels, the share of other labels there would go to zero as models become surer, and with them it
levels off. Two classes are the model of class-conditional noise of Natarajan et al. (2013). Each class
has its own a: models can be too sure of one class and not sure enough of another. With one a for all,
the number was 10 to 18% too low on adult.

A row's label is wrong with probability

    P(wrong | label j) = 1 - (1 - e_j) p_j / P(label j)

whose sum over rows estimates the number of wrong labels. All classes share one rate, unless a
likelihood ratio test at 5% rejects this. This matters for classes of unequal size:
with one rate for all, most labels of a rare class are suspicious, because more rows of the large
class have come there than the rare class has.

The 95% interval of the number is that of the profile likelihood of the rate, widened by the variance
of the number at known rates. The models' own errors are not in it, so it can contain the true number
less often (docs/values.md has the figures).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy.special import expit, gammaincinv, log_softmax, logit, ndtri

from modelpred.metrics import CONFIDENCE, Vector

if TYPE_CHECKING:  # scipy.optimize is imported where it is used: a stage starts sooner without it
    from scipy.optimize import OptimizeResult

BINS = 200  # of the log odds of two classes, within which rows count as equal
MOST_RATE = 0.5  # a class's labels are right more often than not
LEAST_RATE = 1e-7
LOGITS = (-16.0, 8.0)  # of the rate over MOST_RATE, between which the ends of intervals are found
STARTS = (-5.0, -2.0)  # of the logit of the rate over MOST_RATE
SHARPNESS = 3.0  # standard deviation of a normal prior of the mean log a, which keeps a finite
APART = 0.5  # the same for the differences of log a
SPREAD = 3.0  # the same for the differences of b and of the classes' rates
MOST_SHARP = 20.0  # largest |log a|
STEP = 0.02  # to which the logit of an end of the interval is found
SUREST = 30.0  # largest difference of log probabilities


@dataclass(frozen=True)
class WrongLabels:
    """Estimated wrong labels.

    Attributes:
        probability: that each row's label is wrong, [points].
        log_odds: of it, [points]; these also order rows whose probability is 0.
        rates: share of wrong labels among the rows of each class, [classes].
        count: estimated number of wrong labels.
        low: lower end of its 95% interval.
        high: upper end.
    """

    probability: Vector
    log_odds: Vector
    rates: Vector
    count: float
    low: float
    high: float

    @property
    def inspected(self) -> Bool[NDArray[np.bool_], " points"]:
        """Whether to check each row: as many as there are wrong labels, the most probable first."""
        first = np.zeros(len(self.log_odds), dtype=bool)
        first[np.argsort(-self.log_odds, kind="stable")[: round(self.count)]] = True
        return first


def with_second_family(
    estimate: WrongLabels,
    log_probabilities: Float[NDArray[np.float64], "points classes"],
    labels: Int[NDArray[np.int64], " points"],
) -> WrongLabels:
    """Return the estimate with other probabilities of the rows, and the number and rates as they are.

    Flexible families agree with some of the wrong labels, so that their estimate of the number is too
    low, while they order rows better.
    """
    logs = _bounded(log_probabilities)
    noise = _Noise(logs, labels)
    log_odds = _log_odds(noise.parts(noise.at_rates(estimate.rates)), logs, labels)
    return replace(estimate, probability=expit(log_odds), log_odds=log_odds)


def _bounded(log_probabilities: Vector) -> Vector:
    """Log probabilities that add up to 1, none far below the highest."""
    bounded = np.maximum(log_probabilities - log_probabilities.max(1, keepdims=True), -SUREST)
    return log_softmax(bounded, axis=1)


def wrong_labels(
    log_probabilities: Float[NDArray[np.float64], "points classes"],
    labels: Int[NDArray[np.int64], " points"],
) -> WrongLabels:
    """Return the estimate from held-out log probabilities, up to a constant for each row."""
    logs = _bounded(log_probabilities)
    noise = _Noise(logs, labels)
    shared = noise.best(rates=1)
    split = noise.best(rates=noise.classes)
    gain = 2 * float(shared.fun - split.fun)
    by_class = gain > _chi_squared(noise.classes - 1)
    best = split if by_class else shared
    found = noise.parts(best.x)
    log_odds = _log_odds(found, logs, labels)
    probability = expit(log_odds)
    low, high = noise.interval(best)
    count = float(probability.sum())
    variance = float((probability * (1 - probability)).sum())
    own = float(ndtri((1 + CONFIDENCE) / 2)) * math.sqrt(variance)
    return WrongLabels(
        probability,
        log_odds,
        np.broadcast_to(found.rates, noise.classes),
        count,
        max(0.0, count - math.hypot(low, own)),
        min(float(len(labels)), count + math.hypot(high, own)),
    )


@dataclass(frozen=True)
class _Parts:
    """The parameters: a and b, [classes], and the rates e, [classes] or [1] where all have one."""

    sharpness: Vector
    bias: Vector
    rates: Vector


def _log_odds(parts: _Parts, logs: Vector, labels: NDArray[np.int64]) -> Vector:
    """Log odds that each label is wrong."""
    own = np.arange(len(labels)), labels
    scores = log_softmax(parts.sharpness * logs + parts.bias, axis=1)
    rates = np.broadcast_to(parts.rates, len(parts.bias))
    right = np.log1p(-rates)[labels] + scores[own]
    others = scores + np.log(rates) - math.log(len(rates) - 1)
    others[own] = -np.inf
    return np.logaddexp.reduce(others, axis=1) - right


def _ends_of_bins(rows: int) -> list[int]:
    """Where bins of about equal size end, the same from both sides: no class is the first."""
    bins = min(BINS, rows)
    bins -= bins % 2 == 0  # an odd number has a middle bin
    half = [place * rows // bins for place in range(1, bins // 2 + 1)]
    return [*half, *(rows - end for end in reversed(half))]


class _Noise:
    """The penalised likelihood of the model, with rows of two classes in bins."""

    def __init__(self, logs: Vector, labels: NDArray[np.int64]) -> None:
        self.classes = logs.shape[1]
        self.logs, self.labels = logs, labels
        self.weights = np.ones(len(labels))
        if self.classes == 2:
            self._bin()

    def _bin(self) -> None:
        odds = self.logs[:, 1] - self.logs[:, 0]
        parts = np.split(np.lexsort((self.labels, odds)), _ends_of_bins(len(odds)))
        means = np.array([odds[part].mean() for part in parts])
        ones = np.array([self.labels[part].sum() for part in parts], dtype=np.float64)
        sizes = np.array([len(part) for part in parts], dtype=np.float64)
        logs = log_softmax(np.stack([-means / 2, means / 2], axis=1), axis=1)
        self.logs = np.repeat(logs, 2, axis=0)
        self.labels = np.tile([0, 1], len(parts))
        self.weights = np.stack([sizes - ones, ones], axis=1).ravel()

    def parts(self, values: Vector) -> _Parts:
        """The parameters from the vector that is optimised: log a, b, and logits of the rates."""
        sharpness, bias, logits = np.split(values, [self.classes, 2 * self.classes])
        return _Parts(
            np.exp(sharpness.clip(-MOST_SHARP, MOST_SHARP)),
            bias,
            LEAST_RATE + MOST_RATE * expit(logits),
        )

    def best(self, *, rates: int) -> "OptimizeResult":
        """The optimum with one rate, or one for each class."""
        middle = np.zeros(2 * self.classes)
        found = [self._from(np.append(middle, [start] * rates)) for start in STARTS]
        return found[int(np.argmin([result.fun for result in found]))]

    def at_rates(self, rates: Vector) -> Vector:
        """The values of the optimum with these rates of the classes."""
        logits = logit(((rates - LEAST_RATE) / MOST_RATE).clip(expit(LOGITS[0]), expit(LOGITS[1])))
        start = np.concatenate([np.zeros(2 * self.classes), logits])
        fixed = tuple(range(2 * self.classes, len(start)))
        return self._from(start, fixed=fixed).x

    def _from(self, start: Vector, fixed: tuple[int, ...] = ()) -> "OptimizeResult":
        """The optimum from these values, of which some may be fixed."""
        free = ~np.isin(np.arange(len(start)), fixed)
        whole = start.copy()

        def objective(values: Vector) -> tuple[float, Vector]:
            whole[free] = values
            value, gradient = self.objective(whole)
            return value, gradient[free]

        from scipy.optimize import minimize  # noqa: PLC0415

        result = minimize(objective, start[free], jac=True, method="L-BFGS-B")
        whole[free] = result.x
        result.x = whole
        return result

    def objective(self, values: Vector) -> tuple[float, Vector]:
        """Minus the penalised log likelihood and its gradient."""
        k = self.classes
        parts = self.parts(values)
        p, slopes, chance = self._chances(parts)
        outer = (-self.weights / chance)[:, None]  # of P(label)
        by_score = p * (slopes - chance[:, None]) * outer
        by_rate = p / (k - 1)
        own = np.arange(len(self.labels)), self.labels
        by_rate[own] = -p[own]
        share = (parts.rates - LEAST_RATE) / MOST_RATE
        by_logit = (by_rate * outer).sum(0) * MOST_RATE * share * (1 - share)
        if len(parts.rates) == 1:
            by_logit = by_logit.sum(keepdims=True)
        sharpen = parts.sharpness * (by_score * self.logs).sum(0)
        gradient = np.concatenate([sharpen, by_score.sum(0), by_logit])
        penalty, slope = self._penalty(values)
        return float(penalty - (self.weights * np.log(chance)).sum()), gradient + slope

    def _penalty(self, values: Vector) -> tuple[float, Vector]:
        """Minus the log prior, and its gradient."""
        sharpness, bias, rates = np.split(values, [self.classes, 2 * self.classes])
        middle = float(sharpness.mean())
        apart = np.concatenate(
            [(sharpness - middle) / APART, bias / SPREAD, (rates - rates.mean()) / SPREAD]
        )
        slope = apart / np.repeat([APART, SPREAD, SPREAD], [len(sharpness), len(bias), len(rates)])
        slope[: self.classes] += middle / SHARPNESS**2 / self.classes
        return 0.5 * float((apart**2).sum() + (middle / SHARPNESS) ** 2), slope

    def interval(self, best: "OptimizeResult") -> tuple[float, float]:
        """Return the distances from the estimate to the lower and the upper end of its interval.

        With a rate for each class, the distances of the classes' numbers count as independent.
        """
        ends = [self._ends(best, rate) for rate in range(2 * self.classes, len(best.x))]
        low, high = (math.hypot(*side) for side in zip(*ends, strict=True))
        return low, high

    def _ends(self, best: "OptimizeResult", rate: int) -> tuple[float, float]:
        """Return these distances by the profile likelihood of one rate."""
        limit = _chi_squared(1)

        def at(value: float) -> "OptimizeResult":
            start = best.x.copy()
            start[rate] = value
            return self._from(start, fixed=(rate,))

        def excess(value: float) -> float:
            return 2 * float(at(value).fun - best.fun) - limit

        least, most = LOGITS
        middle = float(np.clip(best.x[rate], least + STEP, most - STEP))
        count = self._count(best.x, rate)
        high = most if excess(most) < 0 else _end(excess, middle, most)
        low = least if excess(least) < 0 else _end(excess, least, middle)
        lower = 0.0 if low == least else self._count(at(low).x, rate)
        return max(0.0, count - lower), max(0.0, self._count(at(high).x, rate) - count)

    def _count(self, values: Vector, rate: int) -> float:
        """The expected number of wrong labels of the rows that have this rate."""
        p, slopes, chance = self._chances(self.parts(values))
        wrong = self.weights[:, None] * p * slopes / chance[:, None]
        wrong[np.arange(len(wrong)), self.labels] = 0
        by_class = wrong.sum(0)
        one = len(values) == 2 * self.classes + 1
        return float(by_class.sum() if one else by_class[rate - 2 * self.classes])

    def _chances(self, parts: _Parts) -> tuple[Vector, Vector, Vector]:
        """p, P(label | true class) [rows, classes] and P(label) [rows]."""
        rates = np.broadcast_to(parts.rates, self.classes)
        own = np.arange(len(self.labels)), self.labels
        scores = parts.sharpness * self.logs + parts.bias
        p = np.exp(scores - scores.max(1, keepdims=True))  # scipy's softmax takes thrice as long
        p /= p.sum(1, keepdims=True)
        slopes = np.broadcast_to(rates / (self.classes - 1), p.shape).copy()
        slopes[own] = 1 - rates[self.labels]
        return p, slopes, (slopes * p).sum(1)


def _chi_squared(freedom: int) -> float:
    """The quantile of the chi-squared distribution at the level of confidence."""
    return 2 * float(gammaincinv(freedom / 2, CONFIDENCE))


def _end(excess: Callable[[float], float], first: float, second: float) -> float:
    """Where the profile likelihood crosses the limit between two logits."""
    from scipy.optimize import brentq  # noqa: PLC0415

    return float(cast("float", brentq(excess, first, second, xtol=STEP)))
