"""All ways here to say what each row is worth, ours and the rivals', for studies that judge them.

    shapley, banzhaf     semi-values of the utility by the study's subject (semivalues.py)
    leave_one_out        v(all) - v(all but i) by the study's subject
    held_out_confidence  how sure models, by the subject, of small random subsets without row i are
                         of its label, on average: would a few of the others have guessed it? It
                         needs no test rows
    influence            leave_one_out by the influence function
    newton_step          leave_one_out by one Newton step
    knn_shapley          Shapley values, in closed form, of a nearest-neighbour classifier
    self_confidence      how sure the full-data model, which has seen row i, is of its label
    out_of_fold          the same of models trained exactly on nine tenths of the rows without it
    random               nothing

kNN-Shapley (Jia et al. 2019). The utility for one test row is the share of its k nearest points in
S (of all, where S has fewer) that have its label, over k. With the N points sorted by distance,
a_1 the nearest, and [.] 1 where the label is the test row's:

    value(a_N) = [a_N] / max(k, N)
    value(a_j) = value(a_{j+1}) + ([a_j] - [a_{j+1}]) / k * min(k, j) / j

and the value for all test rows is the mean.

How sure one model, or the mean of several, is of a label: with p the (mean) probabilities,

    confidence = log p_label - log max of the other classes' p

For two classes that is the log odds. Beyond two, dividing by the likeliest other class keeps rows
apart that no small model is sure of from rows that all are sure belong elsewhere. Without
probabilities it is the (mean) margin (svm), and for a regression minus the root of the mean squared
residual. Models that failed are left out of the mean.

*Small subsets.* A subset of a tenth to a fifth of the rows holds few of the wrong labels, and so
few rows that the regulariser keeps the model from bending to them; the mean over a thousand such
models is sure again. Among shares of 8% to 85%, these found planted labels best on every
table tried (docs/values.md).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from modelpred.metrics import Vector
from modelpred.refits.retraining import Refit
from modelpred.studies.sampling import SamplerName, UndefinedUtility
from modelpred.studies.semivalues import (
    Semivalue,
    SemivalueName,
    estimate_values,
    left_out,
)
from modelpred.studies.utility import (
    SCORE_BYTES,
    StudyContext,
    finished,
    full_model,
    game_of,
    refitted,
    retrained,
    score_blocks,
)
from modelpred.targets.model import Points, TargetModel
from modelpred.targets.threads import threads_for

NEIGHBOURS = 5
FOLDS = 10
SMALL_SHARES = (0.1, 0.2)
SMALL_SUBSETS = 1000
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
    rival of whose models too many failed is left out.
    """
    draws = generator.spawn(5)
    subject = context.refits[context.subject]
    game = game_of(subject, context)
    found: dict[str, Worth] = {}

    def timed(name: str, values_of: Callable[[], Vector]) -> None:
        began = time.perf_counter()
        try:
            values = values_of()
        except UndefinedUtility:
            if name in OURS:
                raise
            return
        found[name] = Worth(values, time.perf_counter() - began)

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

    timed("shapley", lambda: sampled("shapley", "stratified", draws[0]))
    timed("banzhaf", lambda: sampled("banzhaf", "reuse", draws[1]))
    timed("held_out_confidence", lambda: held_out_confidence(subject, context, generator=draws[3]))
    timed("leave_one_out", lambda: left_out(game, points=context.pool).values)
    for name in ("influence", "newton_step"):
        if name in context.refits and name != context.subject:
            rival = game_of(context.refits[name], context)
            timed(name, lambda rival=rival: left_out(rival, points=context.pool).values)
    if not context.model.regression:
        timed("knn_shapley", lambda: knn_shapley(context.points, context.test_points))
    timed("self_confidence", lambda: _self_confidence(context))
    timed("out_of_fold", lambda: _out_of_fold(context, draws[4]))
    timed("random", lambda: draws[2].permutation(context.pool).astype(np.float64))
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


def evidence(
    model: TargetModel,
    scores: Float[Tensor, "subsets points outputs"],
    labels: Num[Tensor, " points"],
) -> Float[Tensor, "subsets points columns"]:
    """Return what confidence is the function of, once averaged over models: see the module's text.

    Probabilities of all classes; without them one column of margins, or of squared residuals.
    """
    if model.regression:
        return model.margins(scores, labels).square()[..., None]
    if not model.probabilistic:
        return model.margins(scores, labels)[..., None]
    return model.probabilities(scores)


def confidence(
    mean_evidence: Float[Tensor, "points columns"], labels: Num[Tensor, " points"]
) -> Vector:
    """Return how sure models are of every point's label, on average."""
    if labels.is_floating_point():
        return -mean_evidence[:, 0].sqrt().numpy()
    if mean_evidence.shape[1] == 1:
        return mean_evidence[:, 0].numpy()
    # The smallest normal number: a probability may underflow, its logarithm must not.
    logs = mean_evidence.clamp(min=torch.finfo(torch.float64).tiny).log()
    own = torch.nn.functional.one_hot(labels, logs.shape[1]).bool()
    return (logs[own] - logs.masked_fill(own, -torch.inf).amax(dim=1)).numpy()


def held_out_confidence(
    refit: Refit,
    context: StudyContext,
    *,
    generator: np.random.Generator,
    subsets: int = SMALL_SUBSETS,
) -> Vector:
    """Return how sure models of small subsets without a point are of its label, for every point."""
    found = held_out_evidence(refit, context, generator=generator, subsets=subsets)
    return confidence(found, context.points.labels)


def held_out_evidence(
    refit: Refit,
    context: StudyContext,
    *,
    generator: np.random.Generator,
    subsets: int = SMALL_SUBSETS,
) -> Float[Tensor, "points columns"]:
    """Return the mean evidence about each point of models of small subsets without it."""
    few, many = (max(1, round(share * context.pool)) for share in SMALL_SHARES)
    sizes = generator.integers(few, many, size=(subsets, 1), endpoint=True)
    places = generator.random((subsets, context.pool)).argsort(axis=1).argsort(axis=1)
    members = torch.from_numpy(places < sizes)
    parameters = refitted(refit, members.to(torch.uint8), context)
    kept = finished(parameters)
    members, parameters = members[kept], parameters[kept]
    outside = (~members).sum(dim=0)
    if not bool((outside > 0).all()):
        raise UndefinedUtility(
            f"{int((~kept).sum())} of {subsets} models of small subsets failed; no model is left that "
            "has not seen every row; let training converge, or refine"
        )
    total = torch.zeros(context.pool, 1, dtype=torch.float64)
    first = 0
    model, points = context.model, context.points
    with threads_for(model.largest_scored(parameters, points, limit=SCORE_BYTES)):
        for scores in score_blocks(model, parameters, points):
            absent = (~members[first : first + len(scores)]).double()
            found = evidence(model, scores, points.labels)
            total = total + torch.einsum("sp,spc->pc", absent, found)
            first += len(scores)
    return total / outside[:, None]


def _self_confidence(context: StudyContext) -> Vector:
    full = full_model(context)
    scores = context.model.scores(full, context.points.features)
    found = evidence(context.model, scores, context.points.labels)
    return confidence(found[0], context.points.labels)


def _out_of_fold(context: StudyContext, generator: np.random.Generator) -> Vector:
    folds = min(FOLDS, context.pool)
    fold = torch.from_numpy(generator.permutation(context.pool) % folds)
    outside = fold[None] != torch.arange(folds)[:, None]
    parameters = retrained(outside.to(torch.uint8), context)
    failed = int((~finished(parameters)).sum())
    if failed:
        raise UndefinedUtility(f"{failed} of {folds} models of nine tenths of the rows failed")
    scores = context.model.scores(parameters, context.points.features)
    found = evidence(context.model, scores, context.points.labels)
    return confidence(found[fold, torch.arange(context.pool)], context.points.labels)
