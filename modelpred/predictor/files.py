"""The predictor on disk: predictor.safetensors and predictor.json, nothing else, nothing executable.

The tensors hold the network's weights, the anchors and the pool (features and labels), so that a
loaded predictor answers on its own; and the points of the fit where those are others. The JSON says
how to build the network and the family. The same predictor gives the same bytes: no times, no
machine.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.predictor.anchors import Anchors, SizePath
from modelpred.predictor.config import PredictorConfig
from modelpred.predictor.fitted import Predictor, build_network
from modelpred.predictor.short_training import ShortTraining
from modelpred.sealed import write_atomically
from modelpred.targets import Points, points_of, target_model

SCHEMA_VERSION = 1
LARGEST_BYTES = 4 * 2**30
TENSORS_FILE, DESCRIPTION_FILE = "predictor.safetensors", "predictor.json"
ANCHORS: dict[str, type[SizePath] | type[ShortTraining]] = {
    kind.kind: kind for kind in (SizePath, ShortTraining)
}


class PredictorDescription(BaseModel):
    """predictor.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int
    model: str
    model_settings: dict[str, Any]
    classes: int
    points: int
    fitted_points: int
    features: int
    parameters: int
    anchors: str
    row_ids: tuple[str, ...]
    config: PredictorConfig


def write_predictor(predictor: Predictor, folder: Path) -> None:
    """Write both files into the folder, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"network.{k}": v for k, v in predictor.network.state_dict().items()}
    tensors |= {f"anchors.{name}": v for name, v in predictor.anchors.tensors().items()}
    tensors |= {"points.features": predictor.points.features}
    tensors |= {"points.labels": predictor.points.labels}
    if predictor.known is not None:  # copies: a file holds no tensor twice
        tensors |= {"known.features": predictor.known.features.clone()}
        tensors |= {"known.labels": predictor.known.labels.clone()}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    description = PredictorDescription(
        schema_version=SCHEMA_VERSION,
        model=predictor.model.name,
        model_settings=predictor.model.settings,
        classes=predictor.points.classes,
        points=predictor.points.features.shape[0],
        fitted_points=predictor.anchors.pool,
        features=predictor.points.features.shape[1],
        parameters=predictor.anchors.parameter_count,
        anchors=predictor.anchors.kind,
        row_ids=predictor.row_ids,
        config=predictor.config,
    )
    write_atomically(folder / TENSORS_FILE, save(plain))
    text = json.dumps(description.model_dump(mode="json"), indent=2, sort_keys=True)
    write_atomically(folder / DESCRIPTION_FILE, (text + "\n").encode())


def read_predictor(folder: Path) -> Predictor:
    """The predictor written there, on the CPU.

    Raises:
        InvalidInput: a file is missing, damaged, or does not fit the other.
    """
    description = read_description(folder)
    tensors = _read_tensors(folder / TENSORS_FILE)
    try:
        model = target_model(description.model, **description.model_settings)
        points = _read_points(tensors, "points", description.points, description)
        known = (
            _read_points(tensors, "known", len(tensors["known.features"]), description)
            if "known.features" in tensors
            else None
        )
        anchors = _read_anchors(tensors, description)
        steps = _steps(tensors, description)
        network = build_network(description.config, anchors, points, steps=steps)
        expected = network.state_dict()
        state = {
            name: _take(tensors, f"network.{name}", tuple(tensor.shape))
            for name, tensor in expected.items()
        }
        network.load_state_dict(state)
    except (InvalidInput, TypeError, ValueError) as error:
        raise _damaged(folder / TENSORS_FILE, str(error)) from error
    return Predictor(
        model, points, network, anchors, description.config, description.row_ids, known=known
    )


def _read_points(
    tensors: dict[str, Tensor], name: str, count: int, description: PredictorDescription
) -> Points:
    return points_of(
        _take(tensors, f"{name}.features", (count, description.features)),
        _take(tensors, f"{name}.labels", (count,)),
        description.classes,
    )


def read_description(folder: Path) -> PredictorDescription:
    """What predictor.json says; InvalidInput if it is missing or is not one."""
    path = folder / DESCRIPTION_FILE
    if not path.is_file():
        raise InvalidInput(f"{path} is missing; run the predictor stage first")
    try:
        description = PredictorDescription.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise _damaged(path, f"{where}: {first['msg']}".removeprefix(": ")) from error
    if description.schema_version != SCHEMA_VERSION:
        raise _damaged(
            path, f"it has schema {description.schema_version}, this version reads {SCHEMA_VERSION}"
        )
    return description


def predictor_fingerprint(folder: Path) -> str:
    """SHA-256 over both files: what the registry keys a version by."""
    digest = hashlib.sha256()
    for name in (TENSORS_FILE, DESCRIPTION_FILE):
        path = folder / name
        if not path.is_file():
            raise InvalidInput(f"{path} is missing; run the predictor stage first")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _read_anchors(tensors: dict[str, Tensor], description: PredictorDescription) -> Anchors:
    kind = ANCHORS.get(description.anchors)
    if kind is None:
        raise InvalidInput(f"its anchors are {description.anchors}; known: {', '.join(ANCHORS)}")
    mine = {
        name.removeprefix("anchors."): _take(tensors, name, tuple(tensors[name].shape))
        for name in tensors
        if name.startswith("anchors.")
    }
    anchors = kind(**mine, pool=description.fitted_points)
    if anchors.parameter_count != description.parameters:
        raise InvalidInput(
            f"its anchors have {anchors.parameter_count} parameters, not {description.parameters}"
        )
    return anchors


def _steps(tensors: dict[str, Tensor], description: PredictorDescription) -> int:
    """The learned steps that the file holds; 0 for a network that has none."""
    if description.config.network == "paper":
        return 0
    name = "network.follow"
    if name not in tensors or tensors[name].ndim != 1:
        raise InvalidInput(f"it has no list of steps {name}")
    steps, asked = len(tensors[name]), description.config.steps
    if asked not in (None, steps):
        raise InvalidInput(f"it has {steps} learned steps, not {asked}")
    if steps and f"network.steps.{steps - 1}.last.bias" not in tensors:
        raise InvalidInput(f"it lacks some of its {steps} learned steps")
    return steps


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InvalidInput(f"{path} is missing; run the predictor stage first")
    if path.stat().st_size > LARGEST_BYTES:
        raise _damaged(path, f"it is larger than {LARGEST_BYTES} bytes")
    try:
        return load(path.read_bytes())
    except SafetensorError as error:
        raise _damaged(path, str(error)) from error


def _take(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    if name not in tensors:
        raise InvalidInput(f"it has no tensor {name}")
    tensor = tensors[name]
    if tuple(tensor.shape) != shape:
        raise InvalidInput(f"{name} has shape {list(tensor.shape)}, expected {list(shape)}")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise InvalidInput(f"{name} has values that are not finite")
    # A copy lies aligned in memory, as it did when the predictor was fitted: products of unaligned
    # rows round in another order, and a loaded predictor should answer to the same bit.
    return tensor.clone()


def _damaged(path: Path, why: str) -> InvalidInput:
    return InvalidInput(f"{path} cannot be used: {why}; run the predictor stage again")
