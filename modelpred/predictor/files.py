"""The predictor on disk: predictor.safetensors, predictor.json and history.json, nothing executable.

The tensors hold the network's weights, the anchors and the pool (features and labels), so that a
loaded predictor answers on its own; and the points of the fit where those are others. The JSON says
how to build the network and the family. The same predictor gives the same bytes of both: no times, no
machine. history.json holds the record of the fit, with its times.

SHA256SUMS, written last, seals the files together: a write that was cut short, a changed bit or files
of two predictors are refused. A predictor of schema 1 has no seal; it is read with a warning.
"""

import hashlib
import json
import warnings
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.predictor.anchors import Anchors, SizePath
from modelpred.predictor.coarse_training import CoarseTraining
from modelpred.predictor.config import PredictorConfig
from modelpred.predictor.newton_network import INPUTS
from modelpred.predictor.newton_path import NewtonPath
from modelpred.predictor.predictor import Predictor, build_network
from modelpred.sealed import (
    SEAL,
    Unusable,
    parse_model,
    read_part,
    read_seal,
    refuse,
    seal,
    write_atomically,
)
from modelpred.targets import Points, points_of, target_model

SCHEMA_VERSION, UNSEALED_VERSION = 2, 1
TENSORS_FILE, DESCRIPTION_FILE = "predictor.safetensors", "predictor.json"
PREDICTOR_FILES = (TENSORS_FILE, DESCRIPTION_FILE)
"""What the fingerprint names."""
HISTORY_FILE = "history.json"
AGAIN = "run the predictor stage again"
ANCHORS: dict[str, type[SizePath] | type[NewtonPath] | type[CoarseTraining]] = {
    kind.kind: kind for kind in (SizePath, NewtonPath, CoarseTraining)
}


History = TypeAdapter(list[dict[str, int | float]])


def _without_pool(config: object) -> object:
    """The settings without those of pooled summaries, which earlier versions wrote beside the others.

    Raises:
        ValueError: the network has such summaries.
    """
    if not isinstance(config, dict):
        return config
    settings = cast("dict[str, object]", config)
    pooled = settings.get("network") != "paper" and settings.get("pooled")
    if settings.get("network") == "attention" or pooled:
        raise ValueError("its network pools row features, which only earlier versions can read")
    return {name: each for name, each in settings.items() if name not in ("pooled", "induced")}


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
    config: Annotated[PredictorConfig, BeforeValidator(_without_pool)]
    tolerance: Annotated[float, Field(gt=0)] = 1e-6  # files of before lack it


def write_predictor(predictor: Predictor, folder: Path) -> None:
    """Write the files into the folder, and last the hashes that seal them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (SEAL, DESCRIPTION_FILE):  # what is half written must not pass for what was there
        (folder / name).unlink(missing_ok=True)
    tensors = {f"network.{k}": v for k, v in predictor.network.state_dict().items()}
    tensors |= {f"anchors.{name}": v for name, v in predictor.anchors.tensors().items()}
    tensors |= {"points.features": predictor.points.features}
    tensors |= {"points.labels": predictor.points.labels}
    if predictor.points.sample_weight is not None:
        tensors |= {"points.sample_weight": predictor.points.sample_weight}
    if predictor.known is not None:  # copies: a file holds no tensor twice
        tensors |= {"known.features": predictor.known.features.clone()}
        tensors |= {"known.labels": predictor.known.labels.clone()}
        if predictor.known.sample_weight is not None:
            tensors |= {"known.sample_weight": predictor.known.sample_weight.clone()}
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
        tolerance=predictor.tolerance,
    )
    write_atomically(folder / TENSORS_FILE, save(plain))
    text = json.dumps(description.model_dump(mode="json"), indent=2, sort_keys=True)
    write_atomically(folder / DESCRIPTION_FILE, (text + "\n").encode())
    history = json.dumps(predictor.history, indent=2)
    write_atomically(folder / HISTORY_FILE, (history + "\n").encode())
    seal(folder, (TENSORS_FILE, DESCRIPTION_FILE, HISTORY_FILE))


def read_predictor(folder: Path) -> Predictor:
    """The predictor written there, on the CPU.

    Raises:
        InvalidInput: a file is missing, damaged, or was not sealed together with the others.
    """
    description = _read_description(folder / DESCRIPTION_FILE)
    tensors = read_tensors(folder / TENSORS_FILE)
    history = _read_history(folder / HISTORY_FILE)
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
            name: take_tensor(tensors, f"network.{name}", tuple(tensor.shape))
            for name, tensor in expected.items()
        }
        network.load_state_dict(state)
    except (InvalidInput, TypeError, ValueError, OverflowError) as error:
        raise _damaged(folder / TENSORS_FILE, str(error)) from error
    return Predictor(
        model, points, network, anchors, description.config, description.row_ids, history,
        known=known, tolerance=description.tolerance,
    )  # fmt: skip


def _read_points(
    tensors: dict[str, Tensor], name: str, count: int, description: PredictorDescription
) -> Points:
    return points_of(
        take_tensor(tensors, f"{name}.features", (count, description.features)),
        take_tensor(tensors, f"{name}.labels", (count,)),
        description.classes,
        sample_weight=take_tensor(tensors, f"{name}.sample_weight", (count,))
        if f"{name}.sample_weight" in tensors
        else None,
    )


def _read_description(path: Path) -> PredictorDescription:
    description = parse_model(PredictorDescription, read_part(path, again=AGAIN), path, again=AGAIN)
    sealed = (path.parent / SEAL).exists()
    if description.schema_version not in (SCHEMA_VERSION, UNSEALED_VERSION):
        raise _damaged(
            path, f"it has schema {description.schema_version}, this version reads {SCHEMA_VERSION}"
        )
    if description.schema_version == SCHEMA_VERSION and not sealed:
        raise Unusable(f"{path.parent / SEAL} is missing", AGAIN)
    if not sealed:
        warnings.warn(
            f"{path.parent} has no {SEAL}, so that damage to its files would not be seen; {AGAIN}",
            stacklevel=3,
        )
    return description


def _read_history(path: Path) -> tuple[dict[str, float | int], ...]:
    """The record of the fit; empty where none was kept, as in the registry."""
    sealed = (path.parent / SEAL).exists()
    named = sealed and path.name in read_seal(path.parent, again=AGAIN)
    if not named and not path.exists():
        return ()
    try:
        return tuple(History.validate_json(read_part(path, again=AGAIN)))
    except ValidationError as error:
        raise _damaged(path, "it is no list of epochs") from error


def predictor_fingerprint(folder: Path) -> str:
    """SHA-256 over tensors and description: what the registry keys a version by."""
    digest = hashlib.sha256()
    for name in PREDICTOR_FILES:
        digest.update(hashlib.sha256(read_part(folder / name, again=AGAIN)).digest())
    return digest.hexdigest()


def _read_anchors(tensors: dict[str, Tensor], description: PredictorDescription) -> Anchors:
    kind = ANCHORS.get(description.anchors)
    if kind is None:
        raise InvalidInput(f"its anchors are {description.anchors}; known: {', '.join(ANCHORS)}")
    mine = {
        name.removeprefix("anchors."): take_tensor(tensors, name, tuple(tensors[name].shape))
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
    if description.anchors == NewtonPath.kind:
        corrections = tensors.get("network.corrections")
        if corrections is None or corrections.ndim != 3 or corrections.shape[1] != INPUTS:
            raise InvalidInput("it has no corrections network.corrections")
        return len(corrections) - 1
    name = "network.follow"
    if name not in tensors or tensors[name].ndim != 1:
        raise InvalidInput(f"it has no list of steps {name}")
    steps, asked = len(tensors[name]), description.config.steps
    if asked not in (None, steps):
        raise InvalidInput(f"it has {steps} learned steps, not {asked}")
    if steps and f"network.steps.{steps - 1}.last.bias" not in tensors:
        raise InvalidInput(f"it lacks some of its {steps} learned steps")
    return steps


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; InvalidInput if it is missing or damaged."""
    content = read_part(path, again=AGAIN)
    try:
        return load(content)
    except SafetensorError as error:
        raise _damaged(path, str(error)) from error


def take_tensor(tensors: dict[str, Tensor], name: str, shape: tuple[int | None, ...]) -> Tensor:
    """A copy of a tensor of this shape, in which None is any size.

    Raises:
        InvalidInput: there is none, it has another shape, or values that are not finite.
    """
    if name not in tensors:
        raise InvalidInput(f"it has no tensor {name}")
    tensor = tensors[name]
    fits = tensor.ndim == len(shape) and all(
        size in (None, found) for size, found in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        expected = ["any" if size is None else size for size in shape]
        raise InvalidInput(
            f"{name} has shape {list(tensor.shape)}, expected [{', '.join(map(str, expected))}]"
        )
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise InvalidInput(f"{name} has values that are not finite")
    # A copy lies aligned in memory, as it did when the predictor was fitted: products of unaligned
    # rows round in another order, and a loaded predictor should answer to the same bit.
    return tensor.clone()


def _damaged(path: Path, why: str) -> InvalidInput:
    return refuse(path, why, again=AGAIN)
