"""The cheap methods on disk: rivals.safetensors, what `rivals` trains and fits.

The full-data model and the linear datamodel; the others are expansions around the full-data model.
The file also has the number of subsets that were trained for the fit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from modelpred.refits import Refit, expansions
from modelpred.refits.datamodel import LinearDatamodel
from modelpred.refits.retraining import FullModel
from modelpred.sealed import read_part, refuse, write_atomically
from modelpred.targets.model import TargetModel
from modelpred.targets.points import Points

RIVALS_FILE = "rivals.safetensors"
AGAIN = "run the predictor stage again"


@dataclass(frozen=True)
class StoredRivals:
    """Rivals that were read from a file.

    Attributes:
        refits: by name, cheapest first.
        trained: how many subsets were trained to fit and to choose the predictor.
    """

    refits: dict[str, Refit]
    trained: int


def write_rivals(refits: Mapping[str, Refit], path: Path, *, trained: int) -> None:
    """Write the file.

    Args:
        refits: what `rivals` returned.
        path: of the file.
        trained: see `StoredRivals`.
    """
    full, datamodel = refits[FullModel.name], refits[LinearDatamodel.name]
    assert isinstance(full, FullModel)
    assert isinstance(datamodel, LinearDatamodel)
    tensors = {
        "full_model": full.full_parameters,
        "coefficients": datamodel.coefficients,
        "intercept": datamodel.intercept,
        "penalty": torch.tensor(datamodel.penalty, dtype=torch.float64),
        "trained": torch.tensor(trained),
    }
    content = save({name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()})
    write_atomically(path, content)


def read_rivals(
    path: Path,
    model: TargetModel,
    points: Points,
    *,
    tolerance: float = 1e-6,
    expanded: bool = True,
) -> StoredRivals:
    """The rivals of a family on the points that they were fitted to.

    Args:
        path: of the file.
        model: the family.
        points: the pool.
        tolerance: of refits that train.
        expanded: also the expansions around the model of all rows, which take time to make.

    Raises:
        InvalidInput: the file is missing, damaged, or of other points.
    """
    content = read_part(path, again=AGAIN)
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise refuse(path, str(error), again=AGAIN) from error
    size = model.parameter_count(points.features.shape[1], points.classes)
    shapes: dict[str, tuple[int, ...]] = {
        "full_model": (size,),
        "coefficients": (len(points.labels), size),
        "intercept": (size,),
        "penalty": (),
        "trained": (),
    }
    own = {name: _taken(tensors, name, shape, path) for name, shape in shapes.items()}
    datamodel = LinearDatamodel(
        own["coefficients"], own["intercept"], penalty=float(own["penalty"])
    )
    found: dict[str, Refit] = {FullModel.name: FullModel(model, points, own["full_model"])}
    if expanded:
        found = expansions(model, points, own["full_model"], tolerance=tolerance)
    return StoredRivals({**found, datamodel.name: datamodel}, int(own["trained"]))


def _taken(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...], path: Path) -> Tensor:
    kind = torch.int64 if name == "trained" else torch.float64
    if name not in tensors or tuple(tensors[name].shape) != shape or tensors[name].dtype != kind:
        raise refuse(path, f"it has no {name} of shape {list(shape)}", again=AGAIN)
    if not bool(torch.isfinite(tensors[name]).all()):
        raise refuse(path, f"{name} has values that are not finite", again=AGAIN)
    return tensors[name].clone()  # aligned in memory, so that products round as before
