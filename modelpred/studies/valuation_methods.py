"""Valuation methods compared by the studies.

    shapley, banzhaf     semi-values of the utility by the study's subject (semivalues.py)
    leave_one_out        v(all) - v(all but i) by the study's subject, of more than 1,000 rows by direct
                         answers where the family has them (direct_removals.py)
    held_out_confidence  confidence in the label of row i of the subject's models of small parts of
                         the rows without row i (held_out.py); needs no test rows
    influence            leave_one_out by the influence function
    newton_step          leave_one_out by one Newton step
    knn_shapley          Shapley values of a nearest-neighbour classifier, in closed form
    self_confidence      confidence in the label of row i of the model of all rows
    out_of_fold          confidence in the label of row i of a model trained exactly on nine tenths
                         of the rows without row i
    random               a random order

kNN-Shapley (Jia et al. 2019): the utility for a test row is the number of its k nearest points in S
that have its label, divided by k. With the N points sorted by distance, a_1 the nearest, and [.]
equal to 1 if the label is that of the test row:

    value(a_N) = [a_N] / max(k, N)
    value(a_j) = value(a_{j+1}) + ([a_j] - [a_{j+1}]) / k * min(k, j) / j

The value for several test rows is the mean.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from modelpred.memory import require_memory
from modelpred.metrics import Vector
from modelpred.studies.context import StudyContext, finished, full_model, retrained
from modelpred.studies.held_out import confidence, evidence, held_out_confidence
from modelpred.studies.order_sampling import ORDER_BYTES
from modelpred.studies.samplers import EXACT_UP_TO
from modelpred.studies.sampling import SamplerName, UndefinedUtility
from modelpred.studies.semivalues import (
    Semivalue,
    SemivalueName,
    estimate_values,
    leave_one_out_values,
)
from modelpred.studies.utility import game_of
from modelpred.targets.points import Points

NEIGHBOURS = 5
FOLDS = 10
DISTANCES = 2**22  # of pairs of a test row and a training row that are formed at once
# Methods that use the study's subject.
OURS = ("shapley", "banzhaf", "leave_one_out", "held_out_confidence")


@dataclass(frozen=True)
class MethodValues:
    """Values of all rows by one method, and the time it took."""

    values: Vector
    seconds: float


def require_orders(permutations: int, *, points: int) -> None:
    """Check that there is memory to value so many points with a budget of so many random orders."""
    needed = ORDER_BYTES * permutations * points  # of the sampler stratified
    require_memory(needed, what=f"permutations: {permutations:,} random orders of {points:,} rows")


def values_by_method(
    context: StudyContext,
    *,
    permutations: int,
    generator: np.random.Generator,
    only: Collection[str] | None = None,
) -> dict[str, MethodValues]:
    """Return the values of all rows by every method that the family and the refits allow.

    Higher values are better for all methods. The utility is minus the mean loss on the context's
    test rows. A method with too many failed models is excluded, unless it uses the subject.

    Args:
        context: the rows and the refits.
        permutations: budget of the Shapley and Banzhaf values.
        generator: of the draws, which are the same whatever `only` is.
        only: the methods to use; None: all.
    """
    require_orders(permutations, points=context.pool)
    draws = generator.spawn(5)
    subject = context.refits[context.subject]
    game = game_of(subject, context)
    methods: dict[str, MethodValues] = {}

    def timed(name: str, values_of: Callable[[], Vector]) -> None:
        if only is None or name in only:
            methods.update(_timed(name, values_of))

    def sampled(
        name: SemivalueName, sampler: SamplerName, generator: np.random.Generator
    ) -> Vector:
        return estimate_values(
            game,
            points=context.pool,
            permutations=permutations,
            generator=generator,
            semivalue=Semivalue(name=name),
            sampler=sampler,
            progress=lambda done, total, _: context.progress(done, total, f"values: {name}"),
        ).values

    large = context.pool > EXACT_UP_TO
    timed("shapley", lambda: sampled("shapley", "auto" if large else "stratified", draws[0]))
    timed("banzhaf", lambda: sampled("banzhaf", "auto" if large else "reuse", draws[1]))
    timed("held_out_confidence", lambda: held_out_confidence(subject, context, generator=draws[3]))
    timed(
        "leave_one_out",
        lambda: leave_one_out_values(game, points=context.pool, sampler="auto").values,
    )
    for name in ("influence", "newton_step"):
        if name in context.refits and name != context.subject:
            other = game_of(context.refits[name], context)
            timed(name, lambda other=other: leave_one_out_values(other, points=context.pool).values)
    if not context.model.regression:
        timed("knn_shapley", lambda: knn_shapley(context.points, context.test_points))
    timed("self_confidence", lambda: _self_confidence(context))
    timed("out_of_fold", lambda: _out_of_fold(context, draws[4]))
    timed("random", lambda: draws[2].permutation(context.pool).astype(np.float64))
    return methods


def _timed(name: str, values_of: Callable[[], Vector]) -> dict[str, MethodValues]:
    """The values under the method's name; empty if too many models failed and it is not ours."""
    began = time.perf_counter()
    try:
        values = values_of()
    except UndefinedUtility:
        if name in OURS:
            raise
        return {}
    return {name: MethodValues(values, time.perf_counter() - began)}


def knn_shapley(points: Points, test_points: Points, *, neighbours: int = NEIGHBOURS) -> Vector:
    """Return the kNN-Shapley value of every point."""
    count = len(points.labels)
    total = torch.zeros(count, dtype=torch.float64)
    for rows in torch.arange(len(test_points.labels)).split(max(1, DISTANCES // count)):
        total += _knn_shapley_sums(points, test_points.take(rows), neighbours=neighbours)
    return (total / len(test_points.labels)).numpy()


def _knn_shapley_sums(
    points: Points, test_points: Points, *, neighbours: int
) -> Float64[Tensor, " points"]:
    """Sums over the test rows of the value of every point."""
    count = len(points.labels)
    order = torch.cdist(test_points.features, points.features).argsort(dim=1, stable=True)
    agrees = (points.labels[order] == test_points.labels[:, None]).double()
    rank = torch.arange(1, count, dtype=torch.float64)
    share = rank.clamp(max=neighbours) / (rank * neighbours)
    steps = (agrees[:, :-1] - agrees[:, 1:]) * share
    last = agrees[:, -1:] / max(neighbours, count)
    sorted_values = torch.cat([steps, last], dim=1).flip(1).cumsum(1).flip(1)
    values = torch.empty_like(sorted_values).scatter_(1, order, sorted_values)
    return values.sum(dim=0)


def _self_confidence(context: StudyContext) -> Vector:
    full = full_model(context)
    scores = context.model.scores(full, context.points.features)
    own = evidence(context.model, scores, context.points.labels)
    return confidence(own[0], context.points.labels)


def _out_of_fold(context: StudyContext, generator: np.random.Generator) -> Vector:
    folds = min(FOLDS, context.pool)
    fold = torch.from_numpy(generator.permutation(context.pool) % folds)
    outside = fold[None] != torch.arange(folds)[:, None]
    parameters = retrained(outside.to(torch.uint8), context)
    failed = int((~finished(parameters)).sum())
    if failed:
        raise UndefinedUtility(f"{failed} of {folds} models of nine tenths of the rows failed")
    scores = context.model.scores(parameters, context.points.features)
    by_fold = evidence(context.model, scores, context.points.labels)
    return confidence(by_fold[fold, torch.arange(context.pool)], context.points.labels)
