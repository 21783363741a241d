"""Products of the gradients of margins at one model, K[s, i] = grad f_s . grad f_i.

A chain of linear layers (torch_chain.py) has them as products of layers, without the gradients: with the inputs
a_(l-1) of layer l and the derivatives d_l of a margin by its outputs before the activation,

    K[s, i] = sum over l of (d_l[s] . d_l[i]) (a_(l-1)[s] . a_(l-1)[i] + 1),

without the 1 for a layer without a bias. The gradients of other modules are projected (projected_gradients.py).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from modelpred.refits.projected_gradients import projected
from modelpred.targets import Points, TorchTarget
from modelpred.targets.torch_chain import SLOPES, chain_of

DIMENSIONS = 2048


def gradient_products(
    target: TorchTarget, points: Points, pool: int, parameters: Tensor, *, seed: int
) -> Float[Tensor, "points pool"]:
    """K of all points with the first of them, in the precision of training.

    Args:
        target: whose module it is.
        points: the pool, then other rows.
        pool: number of rows of the pool.
        parameters: of the model.
        seed: of the projection.
    """
    chain = chain_of(target.module)
    if chain is None:
        found = projected(target, points, parameters, dimensions=min(DIMENSIONS, pool), seed=seed)
        return (found @ found[:pool].T).to(target.working)
    parts = target.module.split(parameters.to(target.working))
    inputs = [points.features.to(target.working)]
    for layer in chain:
        made = inputs[-1] @ parts[layer.weight].T
        if layer.bias is not None:
            made += parts[layer.bias]
        inputs.append(made if layer.activation is None else layer.activation(made))
    outputs = inputs[-1].detach().requires_grad_()
    slopes = torch.autograd.grad(target.margins(outputs[None], points.labels).sum(), outputs)[0]
    products = slopes.new_zeros(len(slopes), pool)
    for place in reversed(range(len(chain))):
        layer, below = chain[place], inputs[place]
        if layer.activation is not None:
            slopes = slopes * SLOPES[type(layer.activation)](inputs[place + 1])
        own = below @ below[:pool].T
        if layer.bias is not None:
            own += 1
        products += own.mul_(slopes @ slopes[:pool].T)
        slopes = slopes @ parts[layer.weight]
    return products
