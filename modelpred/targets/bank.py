"""Subsets with their trained models, in memory or mapped from files."""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from modelpred.subsets import Subsets
from modelpred.targets.spill import gather_rows
from modelpred.targets.training import TrainedTargets


@dataclass(frozen=True, repr=False)
class Bank:
    """Subsets with their trained parameters, from all shards of a version.

    `weights` is [subsets, points] of uint8 or int32, `parameters` [subsets, parameters] of float64; `objective`,
    `gradient_norm`, `converged` and `degenerate` are [subsets].
    """

    ids: tuple[str, ...]
    roles: tuple[str, ...]
    designs: tuple[str, ...]
    weights: Tensor
    parameters: Tensor
    objective: Tensor
    gradient_norm: Tensor
    converged: Tensor
    degenerate: Tensor

    def __repr__(self) -> str:
        """Return how many subsets of which role, and how wide."""
        roles = ", ".join(f"{count:,} {role}" for role, count in Counter(self.roles).items())
        return (
            f"{len(self.ids):,} subsets ({roles}) of {self.weights.shape[1]:,} points, with "
            f"{self.parameters.shape[1]:,} parameters each"
        )

    @classmethod
    def of(cls, subsets: Subsets, trained: TrainedTargets) -> "Bank":
        """Return the subsets with what training gave for each."""
        return cls(
            subsets.ids,
            subsets.roles,
            subsets.designs,
            subsets.weights,
            parameters=trained.parameters,
            objective=trained.objective,
            gradient_norm=trained.gradient_norm,
            converged=trained.converged,
            degenerate=trained.degenerate,
        )

    def usable(self, *, role: str) -> tuple[Tensor, Tensor]:
        """Return weights and parameters of a role's subsets whose training converged.

        The parameters of the others are not their optimum.
        """
        own = torch.tensor([each == role for each in self.roles], dtype=torch.bool)
        rows = own & self.converged
        return gather_rows(self.weights, rows), gather_rows(self.parameters, rows)

    def select(self, *, role: str | None = None, design: str | None = None) -> "Bank":
        """Return the subsets of one role, one design, or both, in the same order."""
        rows = [
            row
            for row, named in enumerate(zip(self.roles, self.designs, strict=True))
            if role in (None, named[0]) and design in (None, named[1])
        ]
        return Bank(
            ids=tuple(self.ids[row] for row in rows),
            roles=tuple(self.roles[row] for row in rows),
            designs=tuple(self.designs[row] for row in rows),
            weights=gather_rows(self.weights, torch.tensor(rows, dtype=torch.int64)),
            parameters=gather_rows(self.parameters, torch.tensor(rows, dtype=torch.int64)),
            objective=self.objective[rows],
            gradient_norm=self.gradient_norm[rows],
            converged=self.converged[rows],
            degenerate=self.degenerate[rows],
        )
