"""Minibatch steps of modules that are a chain of linear layers, each model on its own rows of the batch.

    a_0 = x     a_l = act_l(a_{l-1} W_l' + b_l)     d_l = dF / d(a_{l-1} W_l' + b_l)     dF / dW_l = d_l' a_{l-1}

torch.func evaluates all models on all rows of a batch and then changes parameters by the gradients. Here rows
of weight zero are left out, which halves the products of halves, and the product d_l' a_{l-1} is added to the
parameters where it is made. `train` takes this way where `chain_of` finds a chain.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from modelpred.targets.torch_modules import Built

MOST_OWN = 0.85
"""Largest share of a batch that is gathered for each model; for more, all models take the whole batch."""
Slope = Callable[[Tensor], Tensor]
SLOPES: dict[type[nn.Module], Slope] = {
    nn.ReLU: lambda outputs: outputs > 0,
    nn.Tanh: lambda outputs: 1 - outputs.square(),
    nn.Sigmoid: lambda outputs: outputs * (1 - outputs),
}
"""Derivatives of activations as functions of their outputs."""


@dataclass(frozen=True)
class Layer:
    """A linear layer and what follows it.

    Attributes:
        weight: name of its parameter.
        bias: name of its parameter; None without a bias.
        activation: an entry of SLOPES; None at the end of the module.
    """

    weight: str
    bias: str | None
    activation: nn.Module | None


@runtime_checkable
class Update(Protocol):
    """What changes parameters (torch_recipe.py)."""

    def change(self, name: str, slope: Tensor) -> None:
        """Descend along a gradient."""
        ...

    def change_by_product(self, name: str, left: Tensor, right: Tensor) -> None:
        """Descend along the gradients left @ right, [subsets, ...]."""
        ...


def chain_of(built: Built) -> tuple[Layer, ...] | None:
    """The linear layers of a module that consists of them and activations; None of another module."""
    found: list[Layer] = []
    for name, module in _leaves(built.skeleton):
        if type(module) is nn.Linear:
            start = f"{name}." if name else ""
            bias = (
                f"{start}bias" if dict(module.named_parameters()).get("bias") is not None else None
            )
            found.append(Layer(f"{start}weight", bias, None))
        elif type(module) in SLOPES and found and found[-1].activation is None:
            found[-1] = Layer(found[-1].weight, found[-1].bias, module)
        elif type(module) is not nn.Identity:
            return None
    names = [name for layer in found for name in (layer.weight, layer.bias) if name is not None]
    # Frozen parameters and those that two layers share have no name of their own.
    whole = sorted(names) == sorted(built.names) == sorted(set(names))
    return tuple(found) if found and whole and not _buffers(built.skeleton) else None


def _buffers(module: nn.Module) -> bool:
    return next(iter(module.buffers()), None) is not None


def _leaves(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules of nested sequences, in their order."""
    if type(module) is not nn.Sequential:
        yield name, module
        return
    for key, each in module.named_children():
        yield from _leaves(each, f"{name}.{key}" if name else key)


def own_rows(rows: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of a batch that each model uses, and their shares, both [subsets, most rows of a model].

    Models with fewer rows have others in their places, with share zero. Where gathering does not pay, all
    models have all rows, [rows] and [subsets, rows].
    """
    used = shares != 0
    most = max(1, int(used.sum(1).max()))
    if most > MOST_OWN * len(rows):
        return rows, shares
    places = used.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices[:, :most]
    return rows[places], shares.gather(1, places)


def step(
    chain: tuple[Layer, ...],
    parts: dict[str, Tensor],
    features: Tensor,
    *,
    labels: Tensor,
    shares: Tensor,
    output_slopes: Callable[[Tensor, Tensor, Tensor], Tensor],
    update: Update,
) -> None:
    """Change the parameters of all models by one batch.

    Args:
        chain: the layers.
        parts: parameters [subsets, *shape] by name, which `update` changes in place.
        features: [rows, features], or [subsets, rows, features].
        labels: [subsets, rows].
        shares: [subsets, rows], factors of the rows' losses.
        output_slopes: from outputs [subsets, rows, outputs], labels and shares to the derivative of each
            model's loss by its outputs.
        update: the optimiser.
    """
    count = len(parts[chain[0].weight])
    inputs = [features.expand(count, -1, -1)]
    for layer in chain:
        weight = parts[layer.weight].mT
        if layer.bias is None:
            made = torch.bmm(inputs[-1], weight)
        else:
            made = torch.baddbmm(parts[layer.bias][:, None], inputs[-1], weight)
        inputs.append(made if layer.activation is None else layer.activation(made))
    slopes = output_slopes(inputs[-1], labels, shares)
    for place in reversed(range(len(chain))):
        layer = chain[place]
        if layer.activation is not None:
            slopes = slopes * SLOPES[type(layer.activation)](inputs[place + 1])
        below = torch.bmm(slopes, parts[layer.weight]) if place else slopes
        update.change_by_product(layer.weight, slopes.mT, inputs[place])
        if layer.bias is not None:
            update.change(layer.bias, slopes.sum(1))
        slopes = below
