"""Full-batch momentum of a one-hidden-layer network for many subsets, each on its own points.

    hidden = tanh(W1 [x, 1])     scores = W2 [hidden, 1]
    velocity <- momentum velocity - rate (gradient + decay theta)     theta <- theta + velocity

Three things make it cheap:

- *Only points that are there.* A subset's own points are gathered once and padded with empty ones
  to a multiple of `PADDING`; half of the pool absent is half of the work.
- *One shape a size.* Subsets of one padded size share batched products. Their shapes follow from
  the subset alone, and every matrix begins at a multiple of 64 bytes, so a subset's products are
  bit for bit independent of the other subsets of the batch, even in float32.
- *Two precisions.* Products may run in float32; parameters and velocity are float64, so that only
  the gradients round (parameters then end within 2e-6 of float64's, relative).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

PADDING = 32  # points; a smaller one wastes fewer products and shares fewer
GROUP_BYTES = 2 * 2**20  # of gathered points that are trained at once
ALIGNED = 4  # lengths that are multiples of it make matrices of a multiple of 64 bytes


@dataclass(frozen=True)
class Schedule:
    """How the descent goes."""

    learning_rate: float
    momentum: float
    weight_decay: float
    steps: int


@dataclass(frozen=True)
class Pool:
    """All points, then an empty one for padding."""

    design: Tensor  # [points + 1, padded features + 1]: [x, 1, 0 ...]
    own: Tensor  # [points + 1, classes]: one_hot(y)
    inputs: int  # features + 1
    classes: int


def pool_of(features: Tensor, labels: Tensor, classes: int, dtype: torch.dtype) -> Pool:
    """The pool in the precision of the products."""
    inputs = features.shape[1] + 1
    design = features.new_zeros(len(features) + 1, _aligned(inputs))
    design[:-1, : inputs - 1] = features
    design[:-1, inputs - 1] = 1
    own = pad(one_hot(labels, classes), (0, 0, 0, 1))
    return Pool(design.to(dtype), own.to(dtype), inputs, classes)


def descend(
    pool: Pool, lower: Tensor, upper: Tensor, weights: Tensor, schedule: Schedule
) -> tuple[Tensor, Tensor]:
    """Both layers, [subsets, units, inputs + 1], after all steps.

    Args:
        pool: the points.
        lower: float64 [subsets, hidden, features + 1], where the descent starts.
        upper: float64 [subsets, classes, hidden + 1].
        weights: [subsets, points].
        schedule: how it goes.
    """
    ended = lower.clone(), upper.clone()
    for size, rows in _groups(pool, weights):
        group = _Group(pool, lower[rows], upper[rows], weights[rows], size)
        for layer, trained in zip(ended, group.trained(schedule), strict=True):
            layer[rows] = trained
    return ended


def _groups(pool: Pool, weights: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Padded sizes, and the rows that share each and fit together into the cache.

    Subsets without points have nothing to learn from and are in no group.
    """
    present = weights > 0
    padded = (present.sum(1) + PADDING - 1) // PADDING * PADDING
    for size in padded.unique().tolist():
        each = max(1, size * pool.design.shape[1] * pool.design.element_size())
        for rows in (padded == size).nonzero()[:, 0].split(max(1, GROUP_BYTES // each)):
            if size:
                yield size, rows


class Gathered:
    """Gradients of fixed subsets at any parameters: their points are gathered once."""

    def __init__(self, pool: Pool, weights: Tensor, *, hidden: int) -> None:
        lower = pool.design.new_zeros(1, hidden, pool.inputs).expand(len(weights), -1, -1)
        upper = pool.design.new_zeros(1, pool.classes, hidden + 1).expand(len(weights), -1, -1)
        self.groups = [
            (rows, _Group(pool, lower[rows], upper[rows], weights[rows], size))
            for size, rows in _groups(pool, weights)
        ]

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The data term's gradient in both layers, [subsets, units, inputs + 1]."""
        found = torch.zeros_like(lower), torch.zeros_like(upper)
        for rows, group in self.groups:
            for layer, slope in zip(found, group.slopes(lower[rows], upper[rows]), strict=True):
                layer[rows] = slope
        return found


class _Group:
    """Subsets of one padded size: their points, their layers, and room for one step's arrays."""

    def __init__(
        self, pool: Pool, lower: Tensor, upper: Tensor, weights: Tensor, size: int
    ) -> None:
        subsets, points = weights.shape
        places = torch.arange(points, device=weights.device)
        chosen = torch.where(weights > 0, places, points).sort(dim=1)[0][:, :size]
        chosen = pad(chosen, (0, size - chosen.shape[1]), value=points)
        shares = pad(weights, (0, 1)).gather(1, chosen)
        shares /= shares.sum(1, keepdim=True)
        working = pool.design.dtype
        self.design = pool.design[chosen]
        self.shares = shares.to(working)[:, None]
        self.own_shares = pool.own[chosen].mT * -self.shares
        self.classes, self.hidden = upper.shape[1], lower.shape[1]
        self.inputs = pool.inputs
        self.layers = self._laid_out(lower, upper)
        # Room for one step, and its parts: cut out once, since views cost as much as small products.
        self.rounded = self.layers.to(working, copy=True)
        self.lower, self.upper = self._cut_out(self.rounded)
        self.upper_units = self.upper[..., : self.hidden].mT
        self.slopes_found = torch.zeros_like(self.rounded)
        self.lower_slopes, self.upper_slopes = self._cut_out(self.slopes_found)
        self.inputs_of = self.design[..., : self.inputs]
        # Hidden units of all points with a one for the intercept.
        self.units = self.design.new_ones(subsets, self.hidden + 1, size)
        self.minus_one = -self.units.new_ones(())

    def trained(self, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """The layers after all steps, without padding."""
        layers, velocity = self.layers, torch.zeros_like(self.layers)
        decay = torch.full_like(layers[:1], schedule.weight_decay)
        for layer in self._cut_out(decay):
            layer[..., -1] = 0
        rate = schedule.learning_rate
        for _ in range(schedule.steps):
            self.rounded.copy_(layers)
            self._step()
            velocity.mul_(schedule.momentum).sub_(self.slopes_found, alpha=rate)
            velocity.addcmul_(layers, decay, value=-rate)
            layers.add_(velocity)
        return self._cut_out(layers)

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The data term's gradient at these layers, without padding."""
        self.rounded.copy_(self._laid_out(lower, upper))
        self._step()
        return self.lower_slopes, self.upper_slopes

    def _laid_out(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Both layers in one row a subset, each row of a layer beginning at an aligned place."""
        widths = self.design.shape[2], _aligned(self.hidden + 1)
        rows = [
            pad(layer, (0, width - layer.shape[2])).flatten(1)
            for layer, width in zip((lower, upper), widths, strict=True)
        ]
        # 16 numbers are 64 bytes of float32.
        return pad(torch.cat(rows, 1), (0, -sum(row.shape[1] for row in rows) % 16))

    def _cut_out(self, layers: Tensor) -> tuple[Tensor, Tensor]:
        """Views of both layers, without padding."""
        middle = self.hidden * self.design.shape[2]
        width = _aligned(self.hidden + 1)
        lower = layers[:, :middle].unflatten(1, (self.hidden, -1))
        upper = layers[:, middle : middle + self.classes * width].unflatten(1, (self.classes, -1))
        return lower[..., : self.inputs], upper[..., : self.hidden + 1]

    def _step(self) -> None:
        """The data term's gradient in both layers, at `rounded`, into `slopes_found`."""
        lower, upper, units = self.lower, self.upper, self.units[:, : self.hidden]
        # tanh(a) = 2 sigmoid(2 a) - 1: as exact as torch's and six times as fast.
        sums = torch.baddbmm(self.minus_one, lower, self.inputs_of.mT, beta=0, alpha=2)
        torch.add(self.minus_one, sums.sigmoid_(), alpha=2, out=units)
        chances = torch.softmax(torch.bmm(upper, self.units), 1)
        output = torch.addcmul(self.own_shares, chances, self.shares)
        self.upper_slopes.copy_(torch.bmm(output, self.units.mT))
        inner = torch.bmm(self.upper_units, output)
        torch.ops.aten.tanh_backward.grad_input(inner, units, grad_input=sums)
        self.lower_slopes.copy_(torch.bmm(sums, self.inputs_of))


def _aligned(length: int) -> int:
    return -(-length // ALIGNED) * ALIGNED
