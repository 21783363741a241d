"""The automatic preparation: anchors first, then as many trained subsets as are worth training.

Fits are made in rounds, each with twice the targets of the round before:

    Newton directions   0, 125, 250, 500, 1,000 targets (the path of the pool is made once)
    learned steps       500 or those trained already, then twice as many and so on, each round from the
                        weights of the last one

A round's error is measured on validation subsets. The rounds end when the error is `ENOUGH`, when twice
the targets lowered it by less than a fifth, or when all planned subsets are trained. Learned steps are
tried after Newton directions only for families of few parameters, whose fits take seconds.

For one call, only those rounds are made that its `Allowance` permits. Another call may go on.
"""

import logging
import math
import time
from dataclasses import dataclass, field

from modelpred.engine.choice import accurate
from modelpred.engine.preparation import (
    Bench,
    Plan,
    Prepared,
    Problem,
    Round,
    fitted,
    validation_error,
    warn_of_failures,
)
from modelpred.predictor import Predictor, PredictorConfig
from modelpred.predictor.anchors import JOINT_BLOCK
from modelpred.predictor.newton_network import ENOUGH, MOST_FITTED
from modelpred.predictor.newton_path import has_newton_path
from modelpred.refits import Progress
from modelpred.targets import Points, TargetModel

FEWEST_NEWTON, FEWEST_LEARNED = 125, 500  # targets of the first round that learns
NEWTON_JUDGES = 100  # validation subsets of Newton directions, which decide little
LEAST_GAIN = 0.2  # share of the error that twice the targets must take away
CONTINUED = 4  # a fit that goes on from another needs one in so many of the epochs

log = logging.getLogger(__name__)


def doublings(first: int, last: int) -> list[int]:
    """Return first, twice that, and so on, and `last` as the end; only `last` if it is smaller."""
    counts: list[int] = []
    while first < last:
        counts.append(first)
        first *= 2
    return [*counts, last] if last else counts


def reason_to_stop(error: float, before: float) -> str | None:
    """Return why no more targets are worth it; None if they may be.

    Args:
        error: of the last round.
        before: of the round with half as many targets; infinite if there is none.
    """
    if error <= ENOUGH:
        return f"the error on validation subsets is {error:.2%}"
    if error > (1 - LEAST_GAIN) * before:
        gain = max(0.0, before - error) / max(before, ENOUGH)
        return f"twice the targets lowered the error by {gain:.0%}, to {error:.2%}"
    return None


@dataclass(frozen=True)
class Allowance:
    """What the preparation for one call may cost beside its first round.

    Attributes:
        targets: most trained subsets.
        accuracy: mean relative error at which no further round is taken.
        learned: whether learned steps may follow Newton directions.
    """

    targets: int
    accuracy: float
    learned: bool


@dataclass
class LearningRounds:
    """The rounds so far, those that may follow, and the best predictor.

    Attributes:
        problem: the family and the pool.
        bench: the subsets.
        ahead: networks to fit in turn, each with numbers of targets that were not tried.
        rounds: what was fitted, in order.
        best: the predictor of the least error.
        error: its error.
        why: why no more targets were trained.
        last: the latest predictor of the first network of `ahead`.
        before: its error; infinite if there is none that was fitted to targets.
    """

    problem: Problem
    bench: Bench
    ahead: list[tuple[PredictorConfig, list[int]]]
    rounds: list[Round] = field(default_factory=list[Round])
    best: Predictor | None = None
    error: float = math.inf
    why: str = ""
    last: Predictor | None = None
    before: float = math.inf

    def go_on(self, *, allowance: Allowance | None = None, progress: Progress) -> Prepared:
        """Return the best predictor, after all rounds that are worth it and permitted.

        Args:
            allowance: what this call may cost; default: all that the plan permits.
            progress: called with (done, total, what).

        Raises:
            InvalidInput: the plan has no targets, but the family or the network needs some.
        """
        while self.ahead:
            config, counts = self.ahead[0]
            if not counts:
                self._next_network(
                    f"all planned subsets are trained; the error is {self.error:.2%}"
                )
            elif allowance is None or self.permits(allowance):
                self._step(config, counts.pop(0), progress=progress)
            else:
                self.why = f"more do not pay for this call; the error is {self.error:.2%}"
                break
        assert self.best is not None
        targets = self.bench.targets
        warn_of_failures(targets)
        log.info("fitted to %d subsets: %s", self.rounds[-1].targets, self.why)
        return Prepared(targets, self.best, tuple(self.rounds), self.why)

    def permits(self, allowance: Allowance) -> bool:
        """Return whether there is another round that a call may take."""
        if not self.ahead or not self.rounds:
            return bool(self.ahead)
        _, counts = self.ahead[0]
        if accurate(self.error, allowance.accuracy) or counts[:1] > [allowance.targets]:
            return False
        return allowance.learned or self.last is not None

    def _next_network(self, why: str) -> None:
        """Leave this network; the next one is fitted only if the error is not near enough."""
        self.why, self.last, self.before = why, None, math.inf
        del self.ahead[: 1 if self.error > ENOUGH else None]
        if self.ahead:  # no fewer than those trained already
            config, counts = self.ahead[0]
            self.ahead[0] = config, [count for count in counts if count >= self.rounds[-1].targets]

    def _step(self, config: PredictorConfig, count: int, *, progress: Progress) -> None:
        """Fit to so many targets."""
        began, bench = time.perf_counter(), self.bench
        few = begins_with_directions(config, self.problem.model, self.problem.points)
        judges = bench.first(NEWTON_JUDGES, "validation") if few else bench.role("validation")
        bench.train(judges, progress=progress)
        bench.train(bench.first(count), progress=progress)
        bank = bench.targets.bank
        # Anchors of fixed training steps change, so that no fit goes on from another one.
        start = self.last if self.problem.model.optimum is not None else None
        last = fitted(self.problem, continued(config, start), bank, start=start, progress=progress)
        error = (
            float(last.history[-1]["validation_error"])  # of the same subsets
            if last.config.network == "newton"
            else validation_error(last, bank)
        )
        seconds = time.perf_counter() - began + (self.rounds[-1].seconds if self.rounds else 0.0)
        self.rounds.append(Round(last.config.network, count, error, seconds))
        if error < self.error or self.best is None:
            self.best, self.error = last, error
        if why := reason_to_stop(error, self.before):
            self._next_network(why)
        else:
            self.last, self.before = last, error if count else math.inf


def continued(config: PredictorConfig, start: Predictor | None) -> PredictorConfig:
    """Return the settings of a fit that goes on from another one."""
    if start is None or start.config.network != "anchored":
        return config
    epochs = math.ceil(config.schedule().epochs / CONTINUED)
    return config.model_copy(update={"epochs": epochs})


def begins_with_directions(config: PredictorConfig, model: TargetModel, points: Points) -> bool:
    """Return whether the first rounds are those of Newton directions."""
    return config.network in ("auto", "newton") and has_newton_path(model, points)


def learning_rounds(problem: Problem, plan: Plan, bench: Bench) -> LearningRounds:
    """Return the rounds before the first is made.

    Args:
        problem: the family and the pool.
        plan: the most subsets to train, and settings of the predictor.
        bench: the subsets.

    Raises:
        InvalidInput: there is not enough memory.
    """
    model, points = problem.model, problem.points
    plan.require_memory(model, points)
    config, most = plan.predictor, bench.most
    if config.network == "paper" or model.quadratic or not most:
        ahead = [(config, [most if config.network == "paper" else 0])]
    elif begins_with_directions(config, model, points):
        counts = [0, *doublings(FEWEST_NEWTON, min(most, MOST_FITTED))]
        ahead = [(config.model_copy(update={"network": "newton"}), counts)]
        if config.network == "auto" and len(problem.full_parameters) <= JOINT_BLOCK:
            learned = config.model_copy(update={"network": "anchored"})
            ahead.append((learned, doublings(FEWEST_LEARNED, most)))
    else:
        ahead = [(config, doublings(FEWEST_LEARNED, most))]
    return LearningRounds(problem, bench, ahead)
