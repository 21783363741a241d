"""Section `subsets` of params.yaml: how many subsets of which design, for each role."""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from modelpred.errors import InvalidInput
from modelpred.numbers import Seed

# Fewest distinct subsets first: in this order designs draw, so that the scarce ones find theirs.
Design = Literal["leave_one_out", "addition", "deletion", "uniform", "prefix", "bootstrap"]
Role = Literal["test", "validation", "fit"]  # in the order in which they draw

DESIGNS: tuple[Design, ...] = get_args(Design)
ROLES: tuple[Role, ...] = get_args(Role)

Counts = dict[Design, Annotated[int, Field(ge=0)]]


class SubsetsConfig(BaseModel):
    """How many subsets of which design, for each role."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    fit: Counts = {"uniform": 4000, "bootstrap": 1000}
    validation: Counts = {"uniform": 200, "bootstrap": 50}
    test: Counts = {"uniform": 500, "deletion": 500, "bootstrap": 250}
    grown: Annotated[float, Field(gt=0)] = 0.25
    block: Annotated[int, Field(ge=1)] = 250
    seed: Seed = 0

    @property
    def total(self) -> int:
        """Number of subsets of all roles."""
        return sum(sum(counts.values()) for counts in (self.fit, self.validation, self.test))


def require_known(what: str, name: str, known: tuple[str, ...]) -> None:
    """Refuse a name that is not among the known ones."""
    if name not in known:
        raise InvalidInput(f"unknown {what} {name!r}; known: {', '.join(known)}")
