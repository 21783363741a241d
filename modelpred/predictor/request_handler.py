"""Questions that come from outside, over HTTP or from a registered version, and their answers.

    weights [subsets, points]                   -> parameters
    weights, and lists of rows to leave out     -> parameters, mean loss on the test rows, certificate

A question's sizes are checked before anything is computed, and row names are only ever looked up.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.numbers import MOST_STEPS, real_number
from modelpred.predictor.files import AGAIN
from modelpred.predictor.predictor import Predictor
from modelpred.sealed import read_part, refuse, write_atomically
from modelpred.targets import Points, points_of
from modelpred.targets.scoring import scored
from modelpred.targets.weights import weights_of

TEST_FILE = "test.safetensors"
REPUBLISH = "run python -m flows.publish, which registers the version again"
SHOWN_ROWS = 5
ALL_STAGES = -1  # what a question says that has no word for none


@dataclass(frozen=True)
class Limits:
    """The largest question that is answered; None: any.

    Attributes:
        weights: cells of one question's weights, subsets x points.
        refine: Newton steps.
    """

    weights: int | None = None
    refine: float | int | None = None


SERVING_LIMITS = Limits(weights=1_000_000, refine=20.0)
"""What is answered to anybody over HTTP."""


@final
class RequestHandler:
    """A predictor that answers questions, with test rows to tell losses on where they are known.

    Attributes:
        points: training rows, each with a weight.
    """

    def __init__(
        self, predictor: Predictor, *, test_points: Points | None = None, limits: Limits = Limits()
    ) -> None:
        self._predictor = predictor
        self._test_points = test_points
        self._limits = limits
        self.points = len(predictor.points.labels)
        self._places = {row_id: place for place, row_id in enumerate(predictor.row_ids)}

    def parameters(
        self, weights: Tensor, *, refine: float | int = 0, stages: int | None = None
    ) -> Tensor:
        """Predicted parameters [subsets, parameters] for weights [subsets, points].

        Raises:
            InvalidInput: weights, `refine` or `stages` that are not such, or more than is answered
                at once.
        """
        weights = weights_of(weights, points=self.points)
        self.check_size(len(weights), refine)
        return _all_finite(self._predictor.predict(weights, refine=refine, stages=stages))

    def without(
        self,
        weights: Tensor,
        lists: Sequence[Sequence[str]],
        *,
        refine: float | int = 0,
        stages: int | None = None,
    ) -> list[dict[str, Any]]:
        """What each list of rows, left out of `weights`, gives: parameters, loss and certificate.

        `loss` is the mean over the test rows, None where the version holds none; `certificate` bounds the distance to
        exact training, None where no bound is known.

        Args:
            weights: [1, points], the same for every list, or [lists, points].
            lists: names of training rows.
            refine: Newton steps from each prediction.
            stages: as `Predictor.predict`.

        Raises:
            InvalidInput: as `parameters`, or names that are no training row's.
        """
        weights = weights_of(weights, points=self.points)
        self.check_size(max(len(weights), len(lists)), refine)
        if len(weights) not in (1, len(lists)):
            raise InvalidInput(
                f"expected one row of weights, or one for each of the {len(lists)} lists, "
                f"got {list(weights.shape)}"
            )
        places = [self._places_of(names) for names in lists]
        left = weights.double().expand(len(lists), -1).clone()
        for row, absent in enumerate(places):
            left[row, absent] = 0.0
        parameters = _all_finite(self._predictor.predict(left, refine=refine, stages=stages))
        bounds = self._predictor.certificate(left, parameters)
        losses = self._losses(parameters)
        return [
            {
                "parameters": parameters[row].tolist(),
                "loss": None if losses is None else _finite(losses[row]),
                "certificate": None if bounds is None else _finite(bounds[row]),
            }
            for row in range(len(lists))
        ]

    def check_size(self, subsets: int, refine: float | int = 0) -> None:
        """Refuse a question that is larger than the limits.

        Raises:
            InvalidInput: so many subsets, or Newton steps, are more than is answered at once.
        """
        points = self.points
        most = self._limits.weights
        if most is not None and subsets * points > most:
            raise InvalidInput(
                f"{subsets} subsets of {points} rows are more than one request may hold; "
                f"send at most {most // points} subsets at once"
            )
        limit = MOST_STEPS if self._limits.refine is None else self._limits.refine
        steps = real_number(refine, "refine", least=0)
        if steps > limit:
            raise InvalidInput(f"refine is {steps:g}; at most {limit:g} here")

    def _places_of(self, names: Sequence[str]) -> list[int]:
        unknown = [str(name)[:80] for name in names if name not in self._places]
        if unknown:
            known = ", ".join(list(self._places)[:SHOWN_ROWS])
            raise InvalidInput(
                f"unknown rows {unknown[:SHOWN_ROWS]}; the {len(self._places)} training rows are "
                f"named {known}, ..."
            )
        return [self._places[name] for name in names]

    def _losses(self, parameters: Tensor) -> Tensor | None:
        if self._test_points is None:
            return None
        model, points = self._predictor.model, self._test_points

        def mean_loss(scores: Tensor) -> Tensor:
            return model.losses(scores, points.labels).mean(1)

        return scored(mean_loss, model, parameters, points, limit=2**26)


def _all_finite(parameters: Tensor) -> Tensor:
    wrong = (~torch.isfinite(parameters)).any(1).nonzero()[:, 0]
    if len(wrong):
        raise InvalidInput(
            f"the prediction for subset {int(wrong[0])} is not finite; its weights are beyond what "
            "the predictor was fitted to, or `refine` is too high"
        )
    return parameters


def _finite(value: Tensor) -> float | None:
    """A number for JSON, which knows no infinity."""
    number = float(value)
    return number if math.isfinite(number) else None


def write_test_points(points: Points, folder: Path) -> None:
    """Writes test rows beside the predictor's files."""
    tensors = {"features": points.features.contiguous(), "labels": points.labels.contiguous()}
    write_atomically(folder / TEST_FILE, save(tensors))


def read_test_points(folder: Path, predictor: Predictor) -> Points | None:
    """The test rows that lie beside the predictor's files; None where there are none.

    Raises:
        InvalidInput: the file is damaged or does not fit the predictor.
    """
    path = folder / TEST_FILE
    if not path.exists():
        return None
    try:
        tensors = load(read_part(path, again=AGAIN))
        why = _unfit(tensors, features=predictor.points.features.shape[1])
        if not why:
            return points_of(tensors["features"], tensors["labels"], predictor.points.classes)
    except (SafetensorError, TypeError, ValueError) as error:
        why = str(error)
    raise refuse(path, why, again=REPUBLISH)


def _unfit(tensors: dict[str, Tensor], *, features: int) -> str:
    """Why the tensors are no test rows for a predictor of so many features; empty if they are."""
    if set(tensors) != {"features", "labels"}:
        return f"it holds {', '.join(sorted(tensors))[:200]}, expected features and labels"
    shapes = [list(tensors[name].shape) for name in ("features", "labels")]
    rows = tensors["labels"].numel()
    if shapes != [[rows, features], [rows]] or not rows:
        return f"its shapes are {shapes}; the predictor has {features} features"
    return ""
