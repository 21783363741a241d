"""A torch module as a pure function of one row of parameters, for many rows at once.

Parameters are in the order of `module.named_parameters()`, each flattened. `torch.func` evaluates the
module for many rows of parameters together (functional_call under vmap). The module is built once for a
seed: its start is drawn from the seed alone.

Dropout is drawn from (seed, step, place of the layer) and is the same for every model, so that trained
parameters remain a function of the weights. Layers that keep statistics of batches are refused.
"""

import copy
import functools
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from modelpred.errors import InvalidInput

Build = Callable[[], Any]  # an nn.Module; other things are refused in one line
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


@final
class SharedDropout(nn.Module):
    """Dropout with a mask that follows from the key alone, set before each step.

    Args:
        share: of the inputs that are dropped.
        spatial: number of last axes that share an entry of the mask.
        place: of the layer in the module.
    """

    def __init__(self, share: float, *, spatial: int, place: int) -> None:
        super().__init__()
        self.share, self.spatial, self.place = share, spatial, place
        self.key: tuple[int, int] = (0, 0)

    def forward(self, inputs: Tensor) -> Tensor:
        """The inputs, in training with some set to zero and the others scaled up."""
        if not self.training or self.share == 0:
            return inputs
        whole = inputs.shape[: inputs.ndim - self.spatial] + (1,) * self.spatial
        # numpy: vmap takes draws of torch for draws of each model, and refuses them.
        drawn = np.random.default_rng([*self.key, self.place]).random(whole, dtype=np.float32)
        mask = torch.from_numpy(drawn >= self.share).to(inputs)
        return inputs * mask / (1 - self.share) if self.share < 1 else inputs * 0


@final
@dataclass(frozen=True, eq=False)
class Built:
    """A module without parameters of its own, and where its training starts.

    Attributes:
        skeleton: its parameters have shapes only.
        names: of the parameters.
        shapes: of the parameters.
        start: all parameters in one row, float64.
    """

    skeleton: nn.Module
    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    start: Tensor
    _local: threading.local = field(default_factory=threading.local, repr=False)

    @property
    def size(self) -> int:
        """Number of parameters."""
        return len(self.start)

    def own_module(self, *, training: bool) -> nn.Module:
        """This thread's copy: functional_call puts parameters into the module that it evaluates."""
        if not hasattr(self._local, "module"):
            self._local.module = copy.deepcopy(self.skeleton)
        return self._local.module.train(training)

    def split(self, parameters: Tensor) -> dict[str, Tensor]:
        """Views [..., *shape] of parameters [..., parameters], by name."""
        parts = parameters.split([shape.numel() for shape in self.shapes], dim=-1)
        return {
            name: part.unflatten(-1, shape) if len(shape) else part[..., 0]
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }

    def join(self, parts: dict[str, Tensor]) -> Tensor:
        """Parameters [subsets, parameters] from parts [subsets, *shape]."""
        return torch.cat([parts[name].flatten(1) for name in self.names], 1)

    def outputs(self, parts: dict[str, Tensor], rows: Tensor, *, module: nn.Module) -> Tensor:
        """Outputs [rows, outputs] of one model; torch.func differentiates and batches it."""
        frozen = {name: each for name, each in module.named_parameters() if name not in parts}
        constants = {
            name: each.to(rows) if each.is_floating_point() else each.to(rows.device)
            for name, each in (*module.named_buffers(), *frozen.items())
        }
        found = functional_call(module, {**parts, **constants}, (rows,))
        return found if found.ndim == 2 else found.unflatten(0, (len(rows), -1)).flatten(1)

    def scores(self, parameters: Tensor, rows: Tensor) -> Tensor:
        """Outputs [subsets, rows, outputs] of all models, in the precision of the parameters."""
        module = self.own_module(training=False)

        def one(parts: dict[str, Tensor]) -> Tensor:
            return self.outputs(parts, rows.to(parameters.dtype), module=module)

        return vmap(one)(self.split(parameters))


def set_step(module: nn.Module, *, seed: int, step: int) -> None:
    """Let the dropout of a module be that of a step."""
    for each in module.modules():
        if isinstance(each, SharedDropout):
            each.key = (seed, step)


@functools.lru_cache(maxsize=16)
def built(build: Build, seed: int) -> Built:
    """The module that `build` makes, started from this seed.

    Raises:
        InvalidInput: it makes no module, or one with layers that cannot be trained here.
    """
    # Initialisers of modules draw from torch's own generator; its state is put back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = build()
    if isinstance(module, type) or not hasattr(module, "named_parameters"):
        raise InvalidInput(f"build() gives {module!r}; expected an instance of nn.Module")
    module = copy.deepcopy(module).cpu()
    _require_trainable(module)
    named = [(name, each) for name, each in module.named_parameters() if each.requires_grad]
    if not named:
        raise InvalidInput(f"{type(module).__name__} has no parameter to train")
    start = torch.cat([each.detach().flatten().to(torch.float64) for _, each in named])
    shapes = tuple(each.shape for _, each in named)
    _share_dropout(module)
    _keep_shapes(module)
    return Built(module, tuple(name for name, _ in named), shapes, start)


def _keep_shapes(module: nn.Module) -> None:
    """Put shapes in the place of trained parameters; parameters that layers share stay shared."""
    shapes: dict[int, nn.Parameter] = {}
    for name, each in list(module.named_parameters(remove_duplicate=False)):
        if each.requires_grad:
            owner, _, own = name.rpartition(".")
            only = shapes.setdefault(id(each), nn.Parameter(torch.empty_like(each, device="meta")))
            setattr(module.get_submodule(owner), own, only)


def _require_trainable(module: nn.Module) -> None:
    for name, each in module.named_modules():
        kind = type(each).__name__
        if getattr(each, "track_running_stats", None) is not None and "BatchNorm" in kind:
            raise InvalidInput(
                f"layer {name!r} is {kind}, whose statistics mix the rows of a batch, so that a row's "
                "weight would not be its share in the loss; use GroupNorm or LayerNorm in its place"
            )
        if getattr(each, "track_running_stats", False):
            raise InvalidInput(
                f"layer {name!r} is {kind} that keeps running statistics; use "
                "track_running_stats=False"
            )
        if "Dropout" in kind and type(each) not in DROPOUTS:
            raise InvalidInput(f"layer {name!r} is {kind}; use nn.Dropout in its place")
        if isinstance(each, (nn.RNNBase, nn.MultiheadAttention)) and getattr(each, "dropout", 0):
            raise InvalidInput(f"layer {name!r} draws dropout of its own; use dropout=0 in {kind}")


def _share_dropout(module: nn.Module) -> None:
    """Put SharedDropout in the place of every dropout layer."""
    layers = [(name, each) for name, each in module.named_modules() if isinstance(each, DROPOUTS)]
    for place, (name, each) in enumerate(layers):
        owner, _, own = name.rpartition(".")
        spatial = DROPOUTS.index(type(each))
        shared = SharedDropout(each.p, spatial=spatial, place=place)
        setattr(module.get_submodule(owner), own, shared)


def trial(own: Built, *, features: int) -> tuple[Tensor, int]:
    """Outputs [2, outputs] of the starting module on two empty rows, and values it makes for a row.

    Raises:
        InvalidInput: the module fails on rows of so many features, or makes no row of outputs each.
    """
    module = own.own_module(training=True)
    made: list[int] = []
    hooks = [
        each.register_forward_hook(lambda _m, _i, output: made.append(_count(output)))
        for each in module.modules()
    ]
    rows = torch.zeros(2, features)

    def one(parts: dict[str, Tensor]) -> Tensor:
        return own.outputs(parts, rows, module=module)

    try:
        with torch.no_grad():
            found: Any = vmap(one)(own.split(own.start.to(rows)[None]))[0]
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        if "andomness" in str(error):
            raise InvalidInput(
                "the module of build() draws random numbers in its forward; use nn.Dropout layers, "
                "whose draws are the same for every model"
            ) from error
        raise InvalidInput(
            f"the module of build() fails on rows of {features} features "
            f"({' '.join(str(error).split())[:200]}); begin it with nn.Unflatten(1, shape) if it "
            "takes another shape"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return found, math.ceil(sum(made) / 2)


def _count(output: object) -> int:
    if isinstance(output, Tensor):
        return output.numel()
    return sum(map(_count, output)) if isinstance(output, Sequence) else 0
