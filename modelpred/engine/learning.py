"""The automatic preparation: anchors first, then as many trained subsets as are worth training.

Fits climb rungs of ever more targets, each twice as many as the one before:

    Newton directions   0, 125, 250, 500, 1,000 targets (the path of the pool is made once)
    learned steps       500 or those trained already, then twice as many and so on, each rung from the
                        weights of the last one

A rung's error is measured on validation subsets. The climb ends when the error is `ENOUGH`, when twice
the targets lowered it by less than a fifth, or when the budget is spent. Learned steps are tried after
Newton directions only for families of few parameters, whose fits take seconds.
"""

import logging
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from modelpred.engine.preparation import (
    Bench,
    Plan,
    Prepared,
    Problem,
    Rung,
    fitted,
    validation_error,
    warn_of_failures,
)
from modelpred.predictor import Predictor, PredictorConfig
from modelpred.predictor.anchors import JOINT_BLOCK
from modelpred.predictor.newton_network import ENOUGH, MOST_FITTED
from modelpred.predictor.newton_path import has_newton_path
from modelpred.refits import Progress

FEWEST_NEWTON, FEWEST_LEARNED = 125, 500  # targets of the first rung that learns
NEWTON_JUDGES = 100  # validation subsets of Newton directions, of which little is decided
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
        error: of the last rung.
        before: of the rung with half as many targets; infinite if there is none.
    """
    if error <= ENOUGH:
        return f"the error on validation subsets is {error:.2%}"
    if error > (1 - LEAST_GAIN) * before:
        gain = max(0.0, before - error) / max(before, ENOUGH)
        return f"twice the targets lowered the error by {gain:.0%}, to {error:.2%}"
    return None


@dataclass
class Climb:
    """The rungs so far, and the best predictor."""

    problem: Problem
    bench: Bench
    progress: Progress
    began: float = field(default_factory=time.perf_counter)
    rungs: list[Rung] = field(default_factory=list[Rung])
    best: Predictor | None = None
    error: float = math.inf
    why: str = ""

    def up(self, config: PredictorConfig, counts: Iterable[int]) -> None:
        """Fit to ever more targets, until more are not worth it."""
        last: Predictor | None = None
        before = math.inf
        for count in counts:
            self.bench.train(self.bench.first(count), progress=self.progress)
            bank = self.bench.targets.bank
            # Anchors of fixed training steps change, so that no fit goes on from another one.
            start = last if self.problem.model.optimum is not None else None
            last = fitted(
                self.problem, continued(config, start), bank, start=start, progress=self.progress
            )
            error = (
                float(last.history[-1]["validation_error"])  # of the same subsets
                if last.config.network == "newton"
                else validation_error(last, bank)
            )
            seconds = time.perf_counter() - self.began
            self.rungs.append(Rung(last.config.network, count, error, seconds))
            if error < self.error or self.best is None:
                self.best, self.error = last, error
            if why := reason_to_stop(error, before):
                self.why = why
                return
            before = error if count else math.inf
        self.why = f"the budget is spent, with an error of {self.error:.2%}"


def continued(config: PredictorConfig, start: Predictor | None) -> PredictorConfig:
    """Return the settings of a fit that goes on from another one."""
    if start is None or start.config.network != "anchored":
        return config
    epochs = math.ceil(config.schedule().epochs / CONTINUED)
    return config.model_copy(update={"epochs": epochs})


def learn(
    problem: Problem, plan: Plan, bench: Bench, *, budget: int | None, progress: Progress
) -> Prepared:
    """Return a predictor fitted to as many targets as are worth training.

    Args:
        problem: the family and the pool.
        plan: the most subsets to train, and settings of the predictor.
        bench: the subsets.
        budget: most targets; default: all of the plan.
        progress: called with (done, total, what).

    Raises:
        InvalidInput: no targets are allowed, but the family or the network needs some.
    """
    model, points = problem.model, problem.points
    plan.require_memory(model, points)
    config = plan.predictor
    most = bench.most if budget is None else min(budget, bench.most)
    climb = Climb(problem, bench, progress)
    directions = config.network in ("auto", "newton") and has_newton_path(model, points)
    bench.train(
        bench.first(NEWTON_JUDGES, "validation") if directions else bench.role("validation"),
        progress=progress,
    )
    if config.network == "paper":
        climb.up(config, [most])
    elif not most or model.quadratic:
        climb.up(config, [0])
    elif directions:
        newton = config.model_copy(update={"network": "newton"})
        climb.up(newton, [0, *doublings(FEWEST_NEWTON, min(most, MOST_FITTED))])
        small = len(problem.full_parameters) <= JOINT_BLOCK
        if climb.error > ENOUGH and small and config.network == "auto":
            learned = config.model_copy(update={"network": "anchored"})
            first = max(FEWEST_LEARNED, climb.rungs[-1].targets)  # those trained already
            bench.train(bench.role("validation"), progress=progress)
            climb.up(learned, doublings(first, most))
    else:
        climb.up(config, doublings(FEWEST_LEARNED, most))
    assert climb.best is not None
    targets = bench.targets
    warn_of_failures(targets)
    log.info("fitted to %d subsets: %s", climb.rungs[-1].targets, climb.why)
    return Prepared(targets, climb.best, tuple(climb.rungs), climb.why)
