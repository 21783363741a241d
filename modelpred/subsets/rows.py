"""Subsets in memory: weights, and what each row of them is for."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int32, Int64, UInt8
from torch import Tensor

from modelpred.errors import InvalidInput
from modelpred.subsets.config import DESIGNS, ROLES, require_known

_GROWN = re.compile(r"-grown\d+(?=-)")  # in the names of subsets that were drawn as a pool grew


@dataclass(frozen=True)
class Subsets:
    """Subsets with what they are for.

    Attributes:
        ids: `fit-uniform-000123`, unique.
        roles: fit, validation or test.
        designs: the design that drew each.
        weights: uint8 [subsets, points]; int32 when a count is over 255.
        redrawn: how many were drawn again because they lacked a class, by role and design
            (`fit-uniform`); absent where none.
    """

    ids: tuple[str, ...]
    roles: tuple[str, ...]
    designs: tuple[str, ...]
    weights: UInt8[Tensor, "subsets points"] | Int32[Tensor, "subsets points"]
    redrawn: Mapping[str, int] = field(default_factory=dict[str, int])

    def __len__(self) -> int:
        """Number of subsets."""
        return len(self.ids)

    @property
    def sizes(self) -> Int64[Tensor, " subsets"]:
        """Number of points taken, with their counts."""
        return self.weights.sum(dim=1, dtype=torch.int64)

    def select(self, *, role: str | None = None, design: str | None = None) -> "Subsets":
        """The subsets with that role and that design, in order; none when there are none.

        Raises:
            InvalidInput: there is no such role or design at all.
        """
        require_known("role", role or ROLES[0], ROLES)
        require_known("design", design or DESIGNS[0], DESIGNS)
        return self.at(
            [
                index
                for index, pair in enumerate(zip(self.roles, self.designs, strict=True))
                if role in (None, pair[0]) and design in (None, pair[1])
            ]
        )

    def at(self, positions: list[int]) -> "Subsets":
        """The subsets at these positions, in this order."""
        return Subsets(
            ids=tuple(self.ids[position] for position in positions),
            roles=tuple(self.roles[position] for position in positions),
            designs=tuple(self.designs[position] for position in positions),
            weights=self.weights[torch.tensor(positions, dtype=torch.int64)],
        )


def joined(parts: Sequence[Subsets]) -> Subsets:
    """Subsets of one pool, one part after the other."""
    wide = any(part.weights.dtype == torch.int32 for part in parts)
    kind = torch.int32 if wide else torch.uint8
    return Subsets(
        tuple(name for part in parts for name in part.ids),
        tuple(role for part in parts for role in part.roles),
        tuple(design for part in parts for design in part.designs),
        torch.cat([part.weights.to(kind) for part in parts]),
    )


def blocks(subsets: Subsets, size: int) -> list[tuple[str, Subsets]]:
    """The subsets of each role and design, `size` at a time, named like `fit-uniform-0003`.

    Those that were drawn when a pool grew have blocks of their own. The last block of each kind may
    be smaller.
    """
    if size < 1:
        raise InvalidInput(f"subsets.block must be at least 1, got {size}")
    positions: dict[str, list[int]] = {}
    named = zip(subsets.ids, subsets.roles, subsets.designs, strict=True)
    for position, (name, role, design) in enumerate(named):
        grown = _GROWN.search(name)
        kind = f"{role}-{design}{grown[0] if grown else ''}"
        positions.setdefault(kind, []).append(position)
    return [
        (f"{kind}-{number:04d}", subsets.at(of_kind[start : start + size]))
        for kind, of_kind in positions.items()
        for number, start in enumerate(range(0, len(of_kind), size))
    ]
