"""Steps of a fixed-point iteration, accelerated by what the last ones changed (Anderson acceleration).

The iteration is d_{k+1} = d_k - v_k with v_k = H^-1 grad F(d_k) and an H that is only about the Hessian.
The last moves s_j = d_{j+1} - d_j changed v by y_j = v_{j+1} - v_j. Where v is linear in d, the move
-sum_j c_j s_j changes it by -sum_j c_j y_j. So the c_j that make v_k - sum_j c_j y_j shortest are taken,
and the plain step for what is left:

    d_{k+1} = d_k - (v_k + sum_j c_j (s_j - y_j))

On a quadratic objective this is the method of generalised conjugate residuals. Lengths are measured with
the diagonal of H, in which H^-1 times a Hessian is symmetric. The y_j are kept orthonormal, so that c_j =
y_j' v_k. Nothing is learned, and a step costs some products of vectors.

D. G. Anderson, Iterative Procedures for Nonlinear Integral Equations, J. ACM 12 (1965).
"""

from typing import final

import torch
from torch import Tensor

WINDOW = 5  # moves that are remembered; with all of them, errors were hardly smaller
LEAST = 1e-2  # share of a change's length that must be new, or it is rounding


@final
class Acceleration:
    """What the last moves of some subsets changed."""

    def __init__(self, metric: Tensor) -> None:
        """Begin with nothing: `metric` [directions] is H's diagonal."""
        self.metric = metric
        self.changes = list[Tensor]()  # y_j, orthonormal, or zero
        self.gains = list[Tensor]()  # s_j - y_j
        self.before: Tensor | None = None  # v where the last move began

    def __call__(self, step: Tensor, move: Tensor) -> Tensor:
        """The step v_k [subsets, directions], accelerated; `move` is the last one, to where v_k is."""
        if self.before is not None:
            self._remember(move, step - self.before)
        self.before = step
        scaled = self.metric * step
        for change, gain in zip(self.changes, self.gains, strict=True):
            step = torch.addcmul(step, (change * scaled).sum(1, keepdim=True), gain)
        return step

    def only(self, rows: Tensor) -> "Acceleration":
        """The acceleration of these subsets."""
        chosen = Acceleration(self.metric)
        chosen.changes = [each[rows] for each in self.changes]
        chosen.gains = [each[rows] for each in self.gains]
        chosen.before = None if self.before is None else self.before[rows]
        return chosen

    def _remember(self, move: Tensor, change: Tensor) -> None:
        """Keep a move and its change, made orthogonal to the others, in place of the oldest."""
        if len(self.changes) == WINDOW:
            del self.changes[0], self.gains[0]
        gain = move - change
        scaled = self.metric * change
        whole = (change * scaled).sum(1, keepdim=True)
        square = whole
        for other, its in zip(self.changes, self.gains, strict=True):
            share = -(other * scaled).sum(1, keepdim=True)
            change = torch.addcmul(change, share, other)
            gain = torch.addcmul(gain, share, its)
            square = square - share * share
        scale = torch.where(square > LEAST**2 * whole, square.clamp(min=1e-30).rsqrt(), 0)
        self.changes.append(change * scale)
        self.gains.append(gain * scale)
