"""All ways here to say what each row is worth, ours and the rivals', for studies that judge them.

    shapley, banzhaf     semi-values of the utility by the study's subject (semivalues.py)
    leave_one_out        v(all) - v(all but i) by the study's subject
    held_out_confidence  mean margin of row i under models, by the subject, of random halves of the
                         pool without row i: would the others have guessed its label? It needs no
                         test rows, and the subsets are those of Banzhaf's, so it costs nothing more
    influence            leave_one_out by the influence function
    newton_step          leave_one_out by one Newton step
    knn_shapley          Shapley values, in closed form, of a nearest-neighbour classifier
    self_confidence      margin of row i under the full-data model, which has seen it
    random               nothing

kNN-Shapley (Jia et al. 2019). The utility for one test row is the share of its k nearest points in
S (of all, where S has fewer) that have its label, over k. With the N points sorted by distance,
a_1 the nearest, and [.] 1 where the label is the test row's:

    value(a_N) = [a_N] / max(k, N)
    value(a_j) = value(a_{j+1}) + ([a_j] - [a_{j+1}]) / k * min(k, j) / j

and the value for all test rows is the mean.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modelpred.metrics import Vector
from modelpred.refits.retraining import Progress, Refit
from modelpred.studies.sampling import UndefinedUtility
from modelpred.studies.semivalues import Semivalue, estimate_values, left_out
from modelpred.studies.utility import StudyContext, game_of, goodness, refitted, score_blocks
from modelpred.targets.model import Points

NEIGHBOURS = 5
# Methods that ask the study's subject; the others are rivals.
OURS = ("shapley", "banzhaf", "leave_one_out", "held_out_confidence")


@dataclass(frozen=True)
class Worth:
    """What one method says each row is worth, and how long it took."""

    values: Vector
    seconds: float


def all_worths(
    context: StudyContext, *, permutations: int, generator: np.random.Generator
) -> dict[str, Worth]:
    """Return the worth of every row by every method that the family and the refits allow.

    Higher is better throughout. The utility is minus the mean loss on the context's test rows. A
    rival that has no finite score somewhere is left out.
    """
    shapley_draws, half_draws, random_draws = generator.spawn(3)
    subject = context.refits[context.subject]
    game = game_of(subject, context)
    found: dict[str, Worth] = {}

    def timed(name: str, values_of: Callable[[], Vector]) -> None:
        began = time.perf_counter()
        values = values_of()
        found[name] = Worth(values, time.perf_counter() - began)

    def told(name: str) -> Progress:
        return lambda done, total, _: context.progress(done, total, f"values: {name}")

    timed(
        "shapley",
        lambda: (
            estimate_values(
                game,
                points=context.pool,
                permutations=permutations,
                generator=shapley_draws,
                progress=told("shapley"),
            ).values
        ),
    )
    found |= _from_halves(subject, context, permutations=permutations, generator=half_draws)
    timed("leave_one_out", lambda: left_out(game, points=context.pool).values)
    for name in ("influence", "newton_step"):
        if name in context.refits and name != context.subject:
            rival = game_of(context.refits[name], context)
            try:
                timed(name, lambda rival=rival: left_out(rival, points=context.pool).values)
            except UndefinedUtility:
                continue
    if not context.model.regression:
        timed("knn_shapley", lambda: knn_shapley(context.points, context.test_points))
    timed("self_confidence", lambda: _self_confidence(context))
    timed("random", lambda: random_draws.permutation(context.pool).astype(np.float64))
    return found


def knn_shapley(points: Points, test_points: Points, *, neighbours: int = NEIGHBOURS) -> Vector:
    """Return the Shapley value of every point for the nearest-neighbour utility above."""
    count = len(points.labels)
    order = torch.cdist(test_points.features, points.features).argsort(dim=1, stable=True)
    agrees = (points.labels[order] == test_points.labels[:, None]).double()
    place = torch.arange(1, count, dtype=torch.float64)
    share = place.clamp(max=neighbours) / (place * neighbours)
    steps = (agrees[:, :-1] - agrees[:, 1:]) * share
    last = agrees[:, -1:] / max(neighbours, count)
    sorted_values = torch.cat([steps, last], dim=1).flip(1).cumsum(1).flip(1)
    values = torch.empty_like(sorted_values).scatter_(1, order, sorted_values)
    return values.mean(dim=0).numpy()


def _self_confidence(context: StudyContext) -> Vector:
    full = context.truth(torch.ones(1, context.pool))
    scores = context.model.scores(full, context.points.features)
    return context.model.margins(scores, context.points.labels)[0].numpy()


def _from_halves(
    subject: Refit, context: StudyContext, *, permutations: int, generator: np.random.Generator
) -> Mapping[str, Worth]:
    """Banzhaf values and held-out confidence from the same random subsets."""
    held_out = torch.zeros(2, context.pool, dtype=torch.float64)  # sums of margins, and counts

    def utility(weights: Tensor) -> Tensor:
        parameters = refitted(subject, weights, context)
        # The end of the game that holds no point at all is no half of the pool.
        absent = ((weights == 0) & (weights.sum(dim=1, keepdim=True) > 0)).double()
        blocks = score_blocks(context.model, parameters, context.points)
        margins = torch.cat(
            [context.model.margins(block, context.points.labels) for block in blocks]
        )
        held_out[0] += (absent * margins).sum(dim=0)
        held_out[1] += absent.sum(dim=0)
        return goodness(context.model, parameters, context.test_points, utility="loss")

    began = time.perf_counter()
    banzhaf = estimate_values(
        utility,
        points=context.pool,
        permutations=permutations,
        generator=generator,
        semivalue=Semivalue(name="banzhaf"),
        sampler="reuse",
        progress=lambda done, total, _: context.progress(done, total, "values: banzhaf"),
    ).values
    seconds = time.perf_counter() - began
    confidence = (held_out[0] / held_out[1]).numpy()
    return {
        "banzhaf": Worth(banzhaf, seconds),
        "held_out_confidence": Worth(confidence, seconds),
    }
