"""Sums over the rows of many subsets, for answers by Newton directions (see answers.c)."""

import ctypes
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, final

import torch
from torch import Tensor
from torch.nn.functional import pad

from modelpred.targets.compiled import kernels
from modelpred.targets.compiled.kernels import Memory, Shared, widened

LOSSES = ("logistic", "svm")  # numbered as in answers.c
LANE = 48  # points are widened to a multiple of it
ROW: Memory = (torch.float32, ("padded",))
WEIGHTS: Memory = (torch.uint8, ("subsets", "points"))
SUMMED: dict[str, Memory] = {"weights": WEIGHTS, "sums": (torch.float32, ("subsets", "across"))}
MOVED: dict[str, Memory] = {
    "weights": WEIGHTS,
    "moves": (torch.float32, ("subsets", "width")),
    "gradients": (torch.float32, ("subsets", "width")),
}
COUNTED: dict[str, Memory] = {
    "weights": WEIGHTS,
    "seen": (torch.int64, ("subsets", "classes")),
    "totals": (torch.int64, ("subsets",)),
    "squares": (torch.int64, ("subsets",)),
}


def available() -> bool:
    """Whether the kernels were built with these functions; those of an older source lack them."""
    return hasattr(kernels.library(), "modelpred_gradients")


@final
class _Counted(Shared):
    """Counted of answers.c."""

    tensors: ClassVar[dict[str, Memory]] = {"labels": (torch.int64, ("points",))}

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("points", "classes")),
        ("labels", ctypes.c_void_p),
    )


@final
class _Anchor(Shared):
    """Anchor of answers.c."""

    tensors: ClassVar[dict[str, Memory]] = {
        "rows": (torch.float32, ("padded", "width")),
        "columns": (torch.float32, ("lanes", "size", "lane")),
        **dict.fromkeys(("factors", "labels", "scores", "slopes"), ROW),
        "directions": (torch.float32, ("padded", "across")),
        "all": (torch.float32, ("across",)),
    }

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("points", "padded", "size", "width")),
        *((name, ctypes.c_int64) for name in ("across", "loss")),
        *((name, ctypes.c_void_p) for name in tensors),
    )

    def axes(self) -> dict[str, int]:
        """Those of the fields, and what is derived from them."""
        found = super().axes()
        return {**found, "lanes": found["padded"] // LANE, "lane": LANE}


@final
class Totals(NamedTuple):
    """Sums over the points of each subset, int64."""

    seen: Tensor  # [subsets, classes], 1 for classes that have a point, else 0
    weights: Tensor  # [subsets]
    squares: Tensor  # [subsets], of the weights


def totals_of(weights: Tensor, labels: Tensor, classes: int) -> Totals:
    """The sums of the weights and of their squares, and which classes have a point.

    Args:
        weights: bytes [subsets, points].
        labels: int64 [points], 0 to classes - 1.
        classes: their number.
    """
    pool, subsets = _Counted(len(labels), classes), len(weights)
    pool.keep(labels=labels)
    seen = torch.empty(subsets, classes, dtype=torch.int64)
    sums, squares = torch.empty(2, subsets, dtype=torch.int64)
    pool.call(
        *("modelpred_totals", COUNTED),
        subsets=subsets, weights=weights, seen=seen, totals=sums, squares=squares,
    )  # fmt: skip
    return Totals(seen, sums, squares)


@final
@dataclass(frozen=True)
class CompiledRows:
    """The rows of a pool with one score a point, as the kernels read them; made by `compiled_rows`."""

    loss: str
    size: int
    rows: Tensor  # [padded, width]
    columns: Tensor  # [padded / LANE, size, LANE]
    factors: Tensor  # [padded]
    labels: Tensor  # [padded]
    points: int

    def anchored(self, *, scores: Tensor, slopes: Tensor, directions: Tensor) -> "CompiledAnchor":
        """The rows near an anchor.

        Args:
            scores: [points] there.
            slopes: [points], the derivative of the loss that changes are counted from.
            directions: [points, directions] of the rows.
        """
        return CompiledAnchor(self, scores, slopes, directions)


@final
class CompiledAnchor:
    """Sums over the rows near an anchor, float32. Weights are bytes [subsets, points]."""

    def __init__(
        self, rows: CompiledRows, scores: Tensor, slopes: Tensor, directions: Tensor
    ) -> None:
        self._size, self._directions = rows.size, directions.shape[1]
        padded, width = rows.rows.shape
        beyond = padded - rows.points
        across = widened(self._directions)
        whole = directions.sum(0, dtype=torch.float64).to(torch.float32)
        self._anchor = _Anchor(
            rows.points, padded, rows.size, width, across, LOSSES.index(rows.loss)
        )
        self._anchor.keep(
            rows=rows.rows,
            columns=rows.columns,
            factors=rows.factors,
            labels=rows.labels,
            scores=pad(scores.to(torch.float32), (0, beyond)),
            slopes=pad(slopes.to(torch.float32), (0, beyond)),
            directions=pad(directions.to(torch.float32), (0, across - self._directions, 0, beyond)),
            all=pad(whole, (0, across - self._directions)),
        )

    def sums(self, weights: Tensor) -> Tensor:
        """sum_i w_i h_i, [subsets, directions]."""
        found = torch.empty(len(weights), self._anchor.across)
        self._anchor.call(
            "modelpred_sums", SUMMED, subsets=len(weights), weights=weights, sums=found
        )
        return found[:, : self._directions]

    def gradients(self, weights: Tensor, moves: Tensor) -> Tensor:
        """The change of the data's gradient when parameters move from the anchor, [subsets, size].

        Args:
            weights: bytes [subsets, points].
            moves: float32 [subsets, size].
        """
        wide = pad(moves, (0, self._anchor.width - self._size))
        found = torch.empty_like(wide)
        self._anchor.call(
            *("modelpred_gradients", MOVED),
            subsets=len(weights), weights=weights, moves=wide, gradients=found,
        )  # fmt: skip
        return found[:, : self._size]


def compiled_rows(
    loss: str, design: Tensor, factors: Tensor, labels: Tensor
) -> CompiledRows | None:
    """The rows for a loss; None where the kernels lack it or were not built.

    Args:
        loss: name of the family.
        design: [points, size], the rows with a one.
        factors: [points] of each row's loss.
        labels: [points], 0 or 1.
    """
    if loss not in LOSSES or design.device.type != "cpu" or not available():
        return None
    points, size = design.shape
    beyond = -points % LANE
    rows = pad(design.to(torch.float32), (0, widened(size) - size, 0, beyond)).contiguous()
    signs = labels if loss == "logistic" else 2 * labels - 1
    return CompiledRows(
        loss,
        size,
        rows,
        rows[:, :size].unflatten(0, (-1, LANE)).mT.contiguous(),
        pad(factors.to(torch.float32), (0, beyond)),
        pad(signs.to(torch.float32), (0, beyond)),
        points,
    )
