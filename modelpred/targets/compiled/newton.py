"""Newton's method in C for linear models: one score a point (newton.c), or softmax (softmax.c)."""

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn.functional import pad

from modelpred.targets.compiled import kernels
from modelpred.targets.compiled.kernels import Memory, Shared, widened
from modelpred.targets.points import Points
from modelpred.targets.score_loss import CompiledLoss, ScoreLoss
from modelpred.targets.solving import Solution, Solver
from modelpred.targets.systems import centred_basis

ONE_SCORE: tuple[CompiledLoss, ...] = (
    "logistic",
    "squared hinge",
    "square",
)  # numbered as in newton_workspace.h
WIDEST = 512  # columns of a Hessian that is factored
MOST_CLASSES = 128  # of softmax, whose preconditioner couples each with each
TILE = 6  # rows that a tile of newton_hessian.h may reach beyond a matrix
COLUMN: Memory = (torch.float64, ("width",))
POINT: Memory = (torch.float64, ("points",))
TRAINED: dict[str, Memory] = {
    "weights": (torch.float64, ("subsets", "points")),
    "start": (torch.float64, ("subsets", "parameters")),
    "parameters": (torch.float64, ("subsets", "parameters")),
    "gradient_norm": (torch.float64, ("subsets",)),
    "objective": (torch.float64, ("subsets",)),
    "iterations": (torch.int64, ("subsets",)),
    "converged": (torch.bool, ("subsets",)),
}
STARTED: dict[str, Memory] = {
    "start_slopes": POINT,
    "start_curvatures": POINT,
    "start_data": COLUMN,
    "start_hessian": (torch.float32, ("tiled", "width")),
}
FAINT = 1e-3  # share of the mean curvature that a point has at least in the basis


def is_compiled(loss: CompiledLoss, model: ScoreLoss, points: Points) -> bool:
    """Whether there is a kernel for the loss that pays on these points."""
    if kernels.library() is None or points.features.device.type != "cpu":
        return False
    if loss == "softmax" and model.intercept_penalty:
        return False  # softmax.c is written for free intercepts
    width = points.features.shape[1] + 1
    return width <= WIDEST if loss in ONE_SCORE else points.classes <= MOST_CLASSES


def compiled_solver(
    loss: CompiledLoss, model: ScoreLoss, points: Points, *, otherwise: Callable[[], Solver]
) -> Solver | None:
    """A solver for blocks of subsets, or None where the kernels are missing or do not pay.

    Args:
        loss: of a point.
        model: the family.
        points: the pool.
        otherwise: makes the solver for subsets that a kernel gives up.
    """
    if not is_compiled(loss, model, points):
        return None
    pool = (_OneScore if loss in ONE_SCORE else _Softmax)(loss, model, points)
    fallback = cache(otherwise)
    if not pool.start_at_own_optimum(fallback):
        return None

    def solve(weights: Tensor, *, start: Tensor | None, tolerance: float) -> Solution:
        solution = pool.trained(weights, start, tolerance)
        left = ~solution.converged
        if bool(left.any()):
            own = None if start is None else start[left]
            rest = fallback()(weights[left], start=own, tolerance=tolerance)
            for name, column in vars(solution).items():
                column[left] = getattr(rest, name)
        return solution

    return solve


class _Pool(ABC):
    """The points as a kernel reads them, and where all subsets start."""

    shared_type: ClassVar[type[Shared]]
    kernel: ClassVar[str]

    def __init__(self, model: ScoreLoss, points: Points, number: int) -> None:
        features = points.features
        self.size = features.shape[1] + 1
        self.width = widened(self.size)
        self.shared = self.shared_type(len(features), self.size, self.width, number, model.C)
        design = model.design(features)
        self.design = pad(design, (0, self.width - self.size))
        penalty = pad(features.new_ones(self.size - 1), (0, self.width - self.size + 1))
        penalty[self.size - 1] = model.intercept_penalty
        self.norm = self.design.norm(dim=0)
        self.shared.keep(design=self.design, norm=self.norm, penalty=penalty)

    @abstractmethod
    def start_at(self, parameters: Tensor) -> None:
        """Let subsets start there."""

    def start_at_own_optimum(self, otherwise: Callable[[], Solver]) -> bool:
        """Let subsets start at the whole pool's parameters; False if they cannot be found.

        Where float32 cannot factor the whole pool's Hessian, it can factor those of smaller subsets.
        """
        ones = torch.ones(1, len(self.design), dtype=torch.float64)
        whole = self.trained(ones, None, 1e-6)
        if not bool(whole.converged):
            whole = otherwise()(ones, start=None, tolerance=1e-6)
        if not bool(whole.converged):
            return False
        self.start_at(whole.parameters[0])
        return True

    @property
    @abstractmethod
    def parameters(self) -> int:
        """How many a subset has."""

    def trained(self, weights: Tensor, start: Tensor | None, tolerance: float) -> Solution:
        """Each subset's parameters and whether they met the tolerance."""
        subsets = len(weights)
        solution = Solution(
            parameters=torch.zeros(subsets, self.parameters, dtype=torch.float64),
            gradient_norm=torch.zeros(subsets, dtype=torch.float64),
            objective=torch.zeros(subsets, dtype=torch.float64),
            iterations=torch.zeros(subsets, dtype=torch.int64),
            converged=torch.zeros(subsets, dtype=torch.bool),
        )
        self.shared.call(
            self.kernel,
            TRAINED,
            subsets=subsets,
            weights=weights.contiguous(),
            start=None if start is None else start.contiguous(),
            tolerance=float(tolerance),
            parameters=solution.parameters,
            gradient_norm=solution.gradient_norm,
            objective=solution.objective,
            iterations=solution.iterations,
            converged=solution.converged,
        )
        return solution


class _OneScorePool(Shared):
    """Pool of newton_workspace.h."""

    tensors: ClassVar[dict[str, Memory]] = {
        "design": (torch.float64, ("points", "width")),
        "scaled": (torch.float32, ("points", "width")),
        **dict.fromkeys(("unit", "norm", "penalty", "start", "start_data"), COLUMN),
        **dict.fromkeys(("labels", "start_scores", "start_slopes", "start_curvatures"), POINT),
        "start_hessian": (torch.float32, ("tiled", "width")),
    }

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("points", "size", "width", "loss")),
        *((name, ctypes.c_double) for name in ("C", "widest")),
        *((name, ctypes.c_void_p) for name in ("design", "scaled", "unit", "norm", "penalty")),
        ("labels", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in ("start", "start_scores", "start_slopes")),
        *((name, ctypes.c_void_p) for name in ("start_curvatures", "start_data", "start_hessian")),
    )

    def axes(self) -> dict[str, int]:
        """Those of the fields, and what is derived from them."""
        found = super().axes()
        return {**found, "tiled": found["width"] + TILE, "parameters": found["size"]}


@final
class _OneScore(_Pool):
    shared_type = _OneScorePool
    kernel = "modelpred_newton"

    def __init__(self, loss: CompiledLoss, model: ScoreLoss, points: Points) -> None:
        super().__init__(model, points, ONE_SCORE.index(loss))
        spread = self.design.square().mean(0).sqrt()
        unit = torch.where(spread > 0, 1 / spread, 1)
        labels = points.labels.to(torch.float64)
        self.shared.widest = float(self.norm.max())
        self.shared.keep(
            scaled=(self.design * unit).to(torch.float32),
            unit=unit,
            labels=labels if loss == "square" else labels * 2 - 1,
            start=torch.zeros_like(unit),
        )

    @property
    def parameters(self) -> int:
        return self.size

    def start_at(self, parameters: Tensor) -> None:
        start = pad(parameters, (0, self.width - self.size))
        self.shared.keep(start=start, start_scores=self.design @ start)
        slopes, curvatures = start.new_zeros(2, len(self.design))
        data, hessian = start.new_zeros(self.width), torch.zeros(self.width + TILE, self.width)
        self.shared.call(
            *("modelpred_start", STARTED),
            start_slopes=slopes,
            start_curvatures=curvatures,
            start_data=data,
            start_hessian=hessian,
        )
        self.shared.keep(start_slopes=slopes, start_curvatures=curvatures)
        self.shared.keep(start_data=data, start_hessian=hessian)


class _SoftmaxPool(Shared):
    """Pool of softmax_workspace.h."""

    tensors: ClassVar[dict[str, Memory]] = {
        "design": (torch.float64, ("points", "width")),
        "turned": (torch.float32, ("points", "width")),
        "columns": (torch.float32, ("width", "points")),
        **dict.fromkeys(("turn", "back"), (torch.float64, ("width", "width"))),
        **dict.fromkeys(("norm", "penalty"), COLUMN),
        "labels": POINT,
        "start": (torch.float64, ("classes", "width")),
    }

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("points", "size", "width", "classes")),
        ("C", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("design", "turned", "columns", "turn", "back")),
        *((name, ctypes.c_void_p) for name in ("norm", "penalty", "labels", "start")),
    )

    def axes(self) -> dict[str, int]:
        """Those of the fields, and what is derived from them."""
        found = super().axes()
        return {**found, "parameters": found["classes"] * found["size"]}


@final
class _Softmax(_Pool):
    shared_type = _SoftmaxPool
    kernel = "modelpred_softmax"

    def __init__(self, loss: CompiledLoss, model: ScoreLoss, points: Points) -> None:  # noqa: ARG002 - one loss
        super().__init__(model, points, points.classes)
        self.classes = points.classes
        self.shared.keep(labels=points.labels.to(torch.float64))
        self.start_at(torch.zeros(self.parameters, dtype=torch.float64))

    @property
    def parameters(self) -> int:
        return self.classes * self.size

    def start_at(self, parameters: Tensor) -> None:
        start = pad(parameters.unflatten(0, (-1, self.size)), (0, self.width - self.size))
        chances = torch.softmax(self.design @ start.T, 1)
        curvature = (chances - chances.square()).sum(1)
        curvature += FAINT * curvature.mean() + 1e-12
        turn = centred_basis(self.design[:, : self.size - 1], curvature[None])[0]
        turn = pad(turn, (0, self.width - self.size, 0, self.width - self.size))
        turned = (self.design @ turn).to(torch.float32)
        self.shared.keep(start=start, turn=turn, back=turn.T, turned=turned, columns=turned.T)
