"""What a linear family defines: its loss of one point as a function of the scores, with two derivatives.

Solvers (systems.py, newton.py, compiled/), the certificate and linear.py are written against this
class. Scores are [outputs, subsets, points] here.
"""

from abc import abstractmethod
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.targets.model import ConvexFamily
from modelpred.targets.shapes import Features, Labels, PerPoint, ScoresByOutput

Curvature = tuple[Tensor, ...]
Intercept = Literal["default", "free", "penalised", "none"]
CompiledLoss = Literal["logistic", "squared hinge", "square", "softmax"]
"""Losses that the kernels have (compiled/newton.py)."""

LARGEST = 1e50  # C: times the largest weight, its square is still a float


@dataclass(frozen=True)
class ScoreLoss(ConvexFamily):
    """Settings of all linear families, and the loss of a point as a function of its scores."""

    C: Annotated[float, Field(gt=0)] = 1.0
    intercept: Intercept = "default"

    default_intercept: ClassVar[Intercept] = "free"
    compiled: ClassVar[CompiledLoss | None] = (
        None  # its name in compiled/newton.py, if C has the loss
    )
    smooth: ClassVar[bool] = True  # the loss has a second derivative everywhere
    shift_free: ClassVar[bool] = False  # equal shifts of all intercepts change nothing
    # Largest relative change of a loss's curvature for a unit by which its scores move apart.
    curvature_drift: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        if not 1 / LARGEST <= self.C <= LARGEST:
            raise InvalidInput(
                f"C is {self.C}; expected a positive number, {1 / LARGEST:g} to {LARGEST:g}"
            )
        if self.intercept not in get_args(Intercept):
            raise InvalidInput(
                f"intercept is {self.intercept!r}; expected one of {', '.join(get_args(Intercept))}"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """All settings; the kind of intercept only where it is not the family's own."""
        known = asdict(self)
        if self._kind == self.default_intercept:
            del known["intercept"]
        return known

    @property
    def intercept_penalty(self) -> float:
        """Factor of the squared intercept in the penalty; that of a squared coefficient is 1."""
        return float(self._kind != "free")

    @property
    def _kind(self) -> Intercept:
        return self.default_intercept if self.intercept == "default" else self.intercept

    def design(self, features: Features) -> Float[Tensor, "points columns"]:
        """[features, 1], or [features, 0] for models without an intercept."""
        last = features.new_full((len(features), 1), float(self._kind != "none"))
        return torch.cat([features, last], 1)

    @abstractmethod
    def outputs(self, classes: int) -> int:
        """Scores a point."""

    @abstractmethod
    def score_losses(self, scores: ScoresByOutput, labels: Labels) -> PerPoint:
        """Loss of each point."""

    @abstractmethod
    def score_slopes(
        self, scores: ScoresByOutput, labels: Labels, out: Tensor | None = None
    ) -> ScoresByOutput:
        """First derivative of the loss in the scores; `out` is room for it, perhaps `scores`."""

    @abstractmethod
    def score_curvature(self, scores: ScoresByOutput, labels: Labels, scale: PerPoint) -> Curvature:
        """Second derivative in the scores times `scale`; first item is its diagonal."""

    def curvature_product(
        self, curvature: Curvature, directions: ScoresByOutput, out: Tensor | None = None
    ) -> ScoresByOutput:
        """`score_curvature` applied to directions; into `out` (may be `directions`) if given."""
        return torch.mul(curvature[0], directions, out=out)
