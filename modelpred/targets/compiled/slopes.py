"""Changes of loss derivatives from an anchor, in bfloat16 (see slopes.c)."""

import ctypes
from typing import ClassVar, final

import torch
from torch import Tensor

from modelpred.targets.compiled import kernels
from modelpred.targets.compiled.kernels import Memory, Shared

MOST_CLASSES = 128
LOSSES = ("logistic", "softmax")  # whose derivative is a probability minus the label
CHANGED: dict[str, Memory] = {
    "weights": (torch.bfloat16, ("subsets", "points")),
    "scores": (torch.bfloat16, ("classes", "subsets", "points")),
}


@final
class _Anchor(Shared):
    """Anchor of slopes.c."""

    tensors: ClassVar[dict[str, Memory]] = {
        "scores": (torch.float32, ("classes", "points")),
        "chances": (torch.float32, ("classes", "points")),
    }

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("points", "classes")),
        ("C", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("scores", "chances")),
    )


@final
class SlopeChanges:
    """C w_i times the change of the loss's derivatives when scores move from an anchor's."""

    def __init__(self, scores: Tensor, scale: float, beyond: Tensor) -> None:
        """Begins at the anchor's scores [outputs, points], float32; `scale` is the C of the family.

        `beyond` [outputs, points] is added to the derivatives at the anchor.
        """
        chances = torch.sigmoid(scores) if len(scores) == 1 else torch.softmax(scores, 0)
        chances = chances + beyond
        self._anchor = _Anchor(scores.shape[1], scores.shape[0], scale)
        self._anchor.keep(scores=scores, chances=chances)

    def __call__(self, moved: Tensor, weights: Tensor) -> Tensor:
        """The changes [outputs, subsets, points], in the memory of `moved`.

        Args:
            moved: how far scores are from the anchor's, bfloat16 [outputs, subsets, points].
            weights: bfloat16 [subsets, points].
        """
        self._anchor.call(
            "modelpred_slopes", CHANGED, subsets=len(weights), weights=weights, scores=moved
        )
        return moved


def slope_changes(
    loss: str, scores: Tensor, scale: float, *, beyond: Tensor
) -> SlopeChanges | None:
    """The compiled changes for a loss; None where the kernel lacks it or was not built."""
    fits = loss in LOSSES and len(scores) <= MOST_CLASSES and scores.device.type == "cpu"
    return SlopeChanges(scores, scale, beyond) if fits and kernels.library() is not None else None
