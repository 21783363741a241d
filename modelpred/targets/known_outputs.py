"""Models by their outputs for known rows, in place of parameters.

Parameters of a stochastic recipe cannot be predicted, its outputs can (predictor/output_predictor.py). Here
the "parameters" of a model are its outputs for the rows of the pool and the test rows, one after the other;
training is that of the family, and scores are looked up. Rows are found by their content.
"""

import math
from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from jaxtyping import Float, Num
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.targets.model import TargetModel
from modelpred.targets.points import Points
from modelpred.targets.scoring import score_blocks
from modelpred.targets.solving import Solution, Solver

AT_ONCE = 64  # models that are scored together: their parameters are copied, those of all are not


@dataclass(frozen=True, eq=False)
class OutputFamily(TargetModel, ABC):
    """Models that are known by their outputs: neither parameters nor objective are defined."""

    has_parameters = False

    def parameter_names(
        self,
        features: Sequence[str],  # noqa: ARG002 - shared signature
        classes: Sequence[str],  # noqa: ARG002 - shared signature
    ) -> list[tuple[str, str]]:
        """None: outputs are no parameters."""
        return []

    def objective(
        self,
        parameters: Float[Tensor, "subsets parameters"],
        weights: Float[Tensor, "subsets points"],  # noqa: ARG002 - shared signature
        points: Points,  # noqa: ARG002 - shared signature
    ) -> Float[Tensor, " subsets"]:
        """Not known: nan."""
        return parameters.new_full((len(parameters),), math.nan)


@final
@dataclass(frozen=True, eq=False)
class KnownOutputs(OutputFamily):
    """Models of a family as their outputs for some rows.

    Attributes:
        family: what is trained.
        known: the rows, [rows, features].
        classes: number of classes; 0 for numbers.
    """

    family: TargetModel
    known: Float[Tensor, "rows features"]
    classes: int

    predictable = False
    positional = True

    @classmethod
    def of(cls, family: TargetModel, points: Points, *scored: Points) -> "KnownOutputs":
        """The family with outputs for these rows."""
        rows = torch.cat([each.features for each in (points, *scored)])
        return cls(family, torch.unique(rows, dim=0), points.classes)

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The family's."""
        return self.family.name

    @property
    def regression(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The family's."""
        return self.family.regression

    @property
    def probabilistic(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The family's."""
        return self.family.probabilistic

    @property
    def settings(self) -> dict[str, Any]:
        """The family's."""
        return self.family.settings

    def advice(self, gradient: float) -> str:
        """The family's."""
        return self.family.advice(gradient)

    @cached_property
    def outputs(self) -> int:
        """Outputs for a row."""
        start = self.family.prior(self._no_counts(1), self.known.shape[1])
        return self.family.scores(start, self.known[:1]).shape[2]

    @cached_property
    def places(self) -> dict[bytes, int]:
        """Position of each known row by its content."""
        rows = self.known.to(torch.float64).numpy()
        return {row.tobytes(): place for place, row in enumerate(rows)}

    def parameter_count(self, features: int, classes: int) -> int:
        """Outputs of one model; InvalidInput where the family does not fit."""
        self.family.parameter_count(features, classes)
        return len(self.known) * self.outputs

    def scores(
        self,
        parameters: Float[Tensor, "subsets parameters"],
        features: Float[Tensor, "points features"],
    ) -> Float[Tensor, "subsets points outputs"]:
        """Outputs for these rows, which must be known."""
        rows = features.to(torch.float64).numpy()
        found = [self.places.get(row.tobytes(), -1) for row in rows]
        if min(found, default=0) < 0:
            raise InvalidInput(
                f"{found.count(-1)} of {len(found)} rows are none of the {len(self.known):,} whose "
                f"outputs are known of {self.name}; score training and test rows only"
            )
        table = parameters.reshape(len(parameters), len(self.known), -1)
        return table[:, torch.tensor(found, dtype=torch.int64)]

    def losses(
        self, scores: Float[Tensor, "subsets points outputs"], labels: Num[Tensor, " points"]
    ) -> Float[Tensor, "subsets points"]:
        """The family's."""
        return self.family.losses(scores, labels)

    def bytes_per_subset(self, points: Points) -> int:
        """The family's."""
        return self.family.bytes_per_subset(points)

    def prior(
        self, counts: Float[Tensor, "subsets groups"], features: int
    ) -> Float[Tensor, "subsets parameters"]:
        """Outputs of the family's model without rows."""
        return self.of_parameters(self.family.prior(counts, features))

    def of_parameters(
        self, parameters: Float[Tensor, "subsets parameters"]
    ) -> Float[Tensor, "subsets outputs"]:
        """Outputs of models of the family for the known rows, float64, some models at a time."""
        rows = Points(self.known, torch.zeros(len(self.known)), self.classes)
        found = parameters.new_empty(len(parameters), len(self.known) * self.outputs).double()
        for part, into in zip(parameters.split(AT_ONCE), found.split(AT_ONCE), strict=True):
            blocks = [block.flatten(1) for block in score_blocks(self.family, part, rows)]
            into.copy_(torch.cat(blocks))
        return found

    def solver(self, points: Points) -> Solver:
        """Trains the family's models, and scores the known rows."""
        train = self.family.solver(points)

        def solve(weights: Tensor, *, start: Tensor | None, tolerance: float) -> Solution:
            if start is not None:
                raise InvalidInput(f"{self.name} starts from its seed; leave out start")
            blocks = [
                self._of_solution(train(own, start=None, tolerance=tolerance))
                for own in weights.split(AT_ONCE)
            ]
            names = ("parameters", "gradient_norm", "objective", "iterations", "converged")
            return Solution(**{name: torch.cat([each[name] for each in blocks]) for name in names})

        return solve

    def _of_solution(self, solved: Solution) -> dict[str, Tensor]:
        return {
            "parameters": self.of_parameters(solved.parameters),
            "gradient_norm": solved.gradient_norm,
            "objective": solved.objective,
            "iterations": solved.iterations,
            "converged": solved.converged,
        }

    def _no_counts(self, subsets: int) -> Tensor:
        return torch.zeros(subsets, max(1, self.classes), dtype=torch.float64)
