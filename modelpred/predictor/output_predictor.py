"""Outputs of models as a function of the weights: the predictor of a target whose parameters are not predicted.

The set function is that of score_prediction.py, for all outputs of the known rows at once, with the kernel of
gradients at the model of all rows. Its file, outputs.safetensors, holds numbers only. Which code the models
are of stands in outputs.json as a digest, and never as something to import: the reader brings the family.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float, Num
from pydantic import BaseModel, ConfigDict
from safetensors.torch import save
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.memory import require_memory
from modelpred.predictor.files import AGAIN, read_tensors, take_tensor
from modelpred.predictor.score_prediction import ScorePredictor, fit_scores
from modelpred.refits.projected_gradients import RIDGES, projected_gradients
from modelpred.refits.retraining import checked_weights
from modelpred.sealed import (
    Unusable,
    parse_model,
    read_part,
    refuse,
    sha256,
    write_atomically,
)
from modelpred.targets import Points, TargetModel, points_of
from modelpred.targets.known_outputs import KnownOutputs

TENSORS_FILE, DESCRIPTION_FILE = "outputs.safetensors", "outputs.json"
DIMENSIONS = 512


class OutputsDescription(BaseModel):
    """outputs.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    settings: str  # digest of the settings, and with them of the code
    classes: int
    gamma: float
    penalty: float
    seconds: float  # of the fit
    row_ids: tuple[str, ...]


@final
@dataclass(frozen=True, eq=False)
class OutputPredictor:
    """A refit that predicts the outputs of models for known rows.

    Attributes:
        model: the family, by its outputs.
        points: the pool.
        scores: the set function.
        row_ids: of the pool.
        seconds: of the fit.
    """

    model: KnownOutputs
    points: Points
    scores: ScorePredictor
    row_ids: tuple[str, ...]
    seconds: float

    name = "predictor"

    def __call__(
        self, weights: Num[Tensor, "subsets points"]
    ) -> Float[Tensor, "subsets parameters"]:
        """Predicted outputs, float64."""
        return self.scores(checked_weights(weights, points=len(self.points.labels)))


def fit_outputs(
    model: KnownOutputs,
    points: Points,
    weights: Num[Tensor, "subsets points"],
    outputs: Float[Tensor, "subsets outputs"],
    *,
    full: Float[Tensor, " parameters"],
    row_ids: tuple[str, ...],
) -> OutputPredictor:
    """The predictor fitted to the outputs of trained models.

    Args:
        model: the family, by its outputs.
        points: the pool.
        weights: of the subsets.
        outputs: of their models for the known rows.
        full: parameters of the model of all rows, at which gradients are taken.
        row_ids: of the pool.

    Raises:
        InvalidInput: there is not the memory for some copies of the outputs and weights.
    """
    began = time.process_time()
    count, rows = weights.shape
    what = f"{outputs.shape[1]:,} outputs of {count:,} subsets of {rows:,} rows"
    require_memory(4 * 8 * count * (outputs.shape[1] + rows), what=what)
    features = projected_gradients(
        model.family,
        points,
        points.take(torch.arange(1)),
        full,
        dimensions=max(1, min(DIMENSIONS, len(points.labels) // 2)),
        seed=0,
    ).features(RIDGES[0])
    scores = fit_scores(weights, outputs, features=features.pool)
    return OutputPredictor(model, points, scores, row_ids, time.process_time() - began)


def write_outputs(predictor: OutputPredictor, folder: Path) -> None:
    """Write the two files into the folder."""
    scores = predictor.scores
    tensors = {
        "directions": scores.directions,
        "coefficients": scores.coefficients,
        "weights": scores.weights,
        "scores": scores.scores,
        "known": predictor.model.known,
        "features": predictor.points.features,
        "labels": predictor.points.labels,
    }
    content = save({name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()})
    write_atomically(folder / TENSORS_FILE, content)
    description = OutputsDescription(
        model=predictor.model.name,
        settings=_settings(predictor.model.family),
        classes=predictor.model.classes,
        gamma=scores.gamma,
        penalty=scores.penalty,
        seconds=predictor.seconds,
        row_ids=predictor.row_ids,
    )
    text = description.model_dump_json(indent=2) + "\n"
    write_atomically(folder / DESCRIPTION_FILE, text.encode())


def read_outputs(folder: Path, family: TargetModel) -> OutputPredictor:
    """The predictor in a folder, of this family.

    Raises:
        InvalidInput: a file is missing or damaged, or of another family or other code.
    """
    path = folder / DESCRIPTION_FILE
    description = parse_model(OutputsDescription, read_part(path, again=AGAIN), path, again=AGAIN)
    if (description.model, description.settings) != (family.name, _settings(family)):
        raise Unusable(
            f"{folder} is of {description.model} with other settings or other code", AGAIN
        )
    path = folder / TENSORS_FILE
    tensors = read_tensors(path)
    try:
        return _read_parts(tensors, description, family)
    except (InvalidInput, ValueError) as error:
        raise refuse(path, str(error), again=AGAIN) from error


def _read_parts(
    tensors: dict[str, Tensor], description: OutputsDescription, family: TargetModel
) -> OutputPredictor:
    rows = len(description.row_ids)
    features = take_tensor(tensors, "features", (rows, None))
    labels = take_tensor(tensors, "labels", (rows,))
    points = points_of(features, labels, description.classes)
    known = take_tensor(tensors, "known", (None, features.shape[1]))
    model = KnownOutputs(family, known, description.classes)
    outputs = model.parameter_count(features.shape[1], points.classes)
    directions = take_tensor(tensors, "directions", (None, rows))
    scores = ScorePredictor(
        description.gamma,
        description.penalty,
        directions=directions,
        coefficients=take_tensor(tensors, "coefficients", (len(directions), outputs)),
        weights=take_tensor(tensors, "weights", (rows,)),
        scores=take_tensor(tensors, "scores", (outputs,)),
    )
    return OutputPredictor(model, points, scores, description.row_ids, description.seconds)


def _settings(family: TargetModel) -> str:
    return sha256(json.dumps(family.settings, sort_keys=True).encode())
