"""Estimators without a family of their own as target models: outputs for known rows in place of parameters.

The features of a row are its position among the known rows, and the parameters of a model are

    weights of the training rows, then answers for the rows that studies score

so that scores are looked up. For any other row the estimator is trained on the weights again.

| family            | scores                              | loss of a row                               |
|-------------------|-------------------------------------|---------------------------------------------|
| ProbabilityBox    | log odds, or log probabilities      | -log p of its class, p at least 1/1000      |
| ScoreBox          | decision function, or +1 and -1     | max(0, 1 - margin)                          |
| NumberBox         | the number                          | (y - prediction)^2 / 2                      |

A tree or a vote of neighbours gives probabilities of 0, whose log loss is infinite; the bound keeps one
row from deciding the value of all others.
"""

import math
from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import logsigmoid

from modelpred.errors import InvalidInput
from modelpred.estimators.known_rows import KnownRows, Positions
from modelpred.estimators.mapping import Estimator
from modelpred.estimators.subset_fits import Job, Kind, SubsetFits
from modelpred.targets.known_outputs import OutputFamily
from modelpred.targets.points import Points
from modelpred.targets.shapes import Labels, PerPoint, Scores
from modelpred.targets.solving import Solution, Solver
from modelpred.targets.threads import thread_count

LEAST_PROBABILITY = 1e-3  # in a loss
BLOCK_BYTES = 8 * 2**20  # what makes blocks of a few subsets, each trained by one process
LATEST = 4  # families of other rows that are kept, with their answers
MEMORY = 64 * 2**20  # bytes of answers that are kept


@dataclass(frozen=True)
class Trainable:
    """An estimator, and the rows that it may be trained on or predict.

    Attributes:
        estimator: unfitted, the last step of a pipeline.
        kind: which outputs are used.
        known: all rows by position.
        classes: as the caller names them, sorted; empty for numbers.
    """

    estimator: Estimator
    kind: Kind
    known: KnownRows
    classes: NDArray[Any]
    boxes: "list[BlackBox]" = field(default_factory=list["BlackBox"], repr=False)  # the latest

    @property
    def name(self) -> str:
        """The estimator's class."""
        return type(self.estimator).__name__


@dataclass(frozen=True, eq=False)
class BlackBox(OutputFamily, ABC):
    """Models whose parameters are the weights of the training rows and answers for scored rows."""

    name = "black_box"
    trainable: Trainable
    points: Points  # the training rows
    scored: Positions  # the rows that are answered for at training
    fits: SubsetFits = field(repr=False)
    places: Positions = field(repr=False)  # of each known row among the scored ones, or -1

    @property
    def title(self) -> str:
        """The estimator's class."""
        return self.trainable.name

    @property
    def settings(self) -> dict[str, Any]:
        """The estimator's class: it cannot be rebuilt from settings."""
        return {"estimator": self.trainable.name}

    def for_rows(self, points: Points, *scored: Points) -> "BlackBox":
        """The family trained on these points and answering for other ones.

        Args:
            points: the training rows.
            scored: the rows to answer for; without any, those of now.
        """
        own = _union(scored) if scored else self.scored
        for box in (self, *self.trainable.boxes):
            if _same(points, box.points) and np.array_equal(own, box.scored):
                return box
        box = _box(self.trainable, points, own)
        self.trainable.boxes[:] = [box, *self.trainable.boxes[: LATEST - 1]]
        return box

    def parameter_count(self, features: int, classes: int) -> int:  # noqa: ARG002 - shared signature
        """Weights and answers."""
        return len(self.points.labels) + len(self.scored) * self.fits.job.outputs

    def scores(
        self,
        parameters: Float[Tensor, "subsets parameters"],
        features: Float[Tensor, "points features"],
    ) -> Scores:
        """Answers of each subset's model; training again for rows that are not among the scored ones."""
        assert parameters.shape[1] == self.parameter_count(1, 0), "parameters of another pool"
        positions = _positions(features)
        known = len(self.places)
        places = self.places[positions.clip(max=known - 1)]
        if bool(((places < 0) | (positions >= known)).any()):
            return self._trained_again(parameters, positions)
        answers = parameters[:, len(self.points.labels) :]
        table = answers.reshape(len(parameters), len(self.scored), self.fits.job.outputs)
        return table[:, torch.from_numpy(places)]

    def _trained_again(self, parameters: Tensor, positions: Positions) -> Tensor:
        failed = ~parameters.isfinite().all(dim=1)
        weights = parameters[:, : len(self.points.labels)].numpy()
        size = (len(weights), len(positions), self.fits.job.outputs)
        found = torch.full(size, math.nan, dtype=torch.float64)
        if len(weights) == 1 and not bool(failed[0]):
            table = self.trainable.known.take(positions)
            return torch.from_numpy(self.fits.answers_for(weights[0], table))[None]
        rows, own = np.unique(positions, return_inverse=True)
        usable = ~failed
        fits = _fits(self.trainable, self.points, rows)
        found[usable] = torch.from_numpy(fits.answers(weights[usable.numpy()])[:, own])
        return found

    def model_of(self, weights: NDArray[np.float64]) -> Estimator:
        """The estimator trained on a subset, [points].

        Raises:
            InvalidInput: it cannot be trained on the subset.
        """
        model = self.fits.model(weights)
        if model is None:
            raise InvalidInput(
                f"{self.trainable.name} has no model of these rows: they hold fewer than two classes"
            )
        return model

    def gradient(
        self,
        parameters: Float[Tensor, "subsets parameters"],
        weights: PerPoint,  # noqa: ARG002 - shared signature
        points: Points,  # noqa: ARG002 - shared signature
    ) -> Float[Tensor, "subsets parameters"]:
        """Not known: nan."""
        return torch.full_like(parameters, math.nan)

    def bytes_per_subset(self, points: Points) -> int:  # noqa: ARG002 - shared signature
        """A number that makes blocks of a few subsets."""
        return BLOCK_BYTES

    def without_optimum(self, counts: Float[Tensor, "subsets groups"]) -> Bool[Tensor, " subsets"]:
        """None: the answers of a subset without two classes are those of its job."""
        return torch.zeros(len(counts), dtype=torch.bool, device=counts.device)

    def solver(self, points: Points) -> Solver:
        """Trains each subset, in as many processes as torch has threads."""
        factors = self.fits.job.factors
        if len(points.labels) != len(self.points.labels):
            raise InvalidInput(
                f"{self.trainable.name} was prepared for {len(self.points.labels)} rows, got "
                f"{len(points.labels)}"
            )
        self.fits.processes = thread_count()

        def solve(weights: Tensor, *, start: Tensor | None, tolerance: float) -> Solution:  # noqa: ARG001 - shared signature
            counts = weights.numpy() if factors is None else weights.numpy() / factors
            answers = self.fits.answers(counts).reshape(len(counts), -1)
            parameters = torch.from_numpy(np.concatenate([counts, answers], axis=1))
            none = weights.new_full((len(weights),), math.nan)
            return Solution(
                parameters=parameters,
                gradient_norm=none,
                objective=none,
                iterations=torch.ones(len(weights), dtype=torch.int64),
                converged=parameters.isfinite().all(dim=1),
            )

        return solve

    def advice(self, gradient: float) -> str:  # noqa: ARG002 - shared signature
        """The latest error of training."""
        return self.fits.errors[-1] if self.fits.errors else "its outputs are not finite"


@final
@dataclass(frozen=True, eq=False)
class ProbabilityBox(BlackBox):
    """A classifier with `predict_proba`."""

    probabilistic = True

    def losses(self, scores: Scores, labels: Labels) -> PerPoint:
        """-log p of the label, p at least 1/1000."""
        if scores.shape[2] == 1:
            own = logsigmoid(self.margins(scores, labels))
        else:
            index = labels[None, :, None].expand(len(scores), -1, 1)
            own = scores.log_softmax(2).gather(2, index)[..., 0]
        return -own.clamp(min=math.log(LEAST_PROBABILITY))


@final
@dataclass(frozen=True, eq=False)
class ScoreBox(BlackBox):
    """A classifier with `decision_function`, or with `predict` alone."""

    def losses(self, scores: Scores, labels: Labels) -> PerPoint:
        """The hinge loss: 0 from a margin of 1."""
        return (1 - self.margins(scores, labels)).clamp(min=0)

    def probabilities(
        self,
        scores: Scores,  # noqa: ARG002 - shared signature
    ) -> Float[Tensor, "subsets points classes"]:
        """None.

        Raises:
            InvalidInput: always.
        """
        raise InvalidInput(
            f"{self.trainable.name} has no predict_proba; use an estimator that has, or wrap it in "
            "CalibratedClassifierCV"
        )


@final
@dataclass(frozen=True, eq=False)
class NumberBox(BlackBox):
    """A regressor."""

    regression = True

    def losses(self, scores: Scores, labels: Labels) -> PerPoint:
        """Half of the squared residual."""
        return (labels - scores[..., 0]).square() / 2


BOXES: dict[Kind, type[BlackBox]] = {
    "probabilities": ProbabilityBox,
    "scores": ScoreBox,
    "classes": ScoreBox,
    "numbers": NumberBox,
}


def black_box(trainable: Trainable, points: Points, *scored: Points) -> BlackBox:
    """The family of an estimator.

    Args:
        trainable: the estimator and its rows.
        points: the training rows.
        scored: the rows to answer for.
    """
    return _box(trainable, points, _union((points, *scored)))


def _box(trainable: Trainable, points: Points, scored: Positions) -> BlackBox:
    fits = _fits(trainable, points, scored)
    return BOXES[trainable.kind](trainable, points, scored, fits, _places(trainable, scored))


def _union(points: Sequence[Points]) -> Positions:
    return np.unique(np.concatenate([_positions(each.features) for each in points]))


def _fits(trainable: Trainable, points: Points, scored: Positions) -> SubsetFits:
    labels = points.labels.numpy()
    factors = points.sample_weight
    job = Job(
        estimator=trainable.estimator,
        kind=trainable.kind,
        rows=trainable.known.take(_positions(points.features)),
        labels=trainable.classes[labels] if len(trainable.classes) else labels,
        classes=trainable.classes,
        factors=None if factors is None else factors.numpy(),
        known=trainable.known.take(scored),
    )
    return SubsetFits(job, processes=thread_count(), memory=MEMORY)


def _places(trainable: Trainable, scored: Positions) -> Positions:
    places = np.full(len(trainable.known), -1)
    places[scored] = np.arange(len(scored))
    return places


def _positions(features: Tensor) -> Positions:
    return features[:, 0].numpy().astype(np.int64)


def _same(one: Points, other: Points) -> bool:
    """Whether two pools hold the same rows with the same labels and sample weights."""
    if one is other:
        return True
    same = torch.equal(one.features, other.features) and torch.equal(one.labels, other.labels)
    return same and torch.equal(one.factors, other.factors)
