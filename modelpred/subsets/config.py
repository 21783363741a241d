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

ALL_UP_TO = 2000  # rows of a table for which `auto` draws all subsets that are asked for
LEAST_SCALE = 0.2  # of larger ones; their predictor needs few, since it follows from derivatives
FEWEST = 20  # subsets of a design that `auto` keeps


class SubsetsConfig(BaseModel):
    """How many subsets of which design, for each role.

    `scale` multiplies the numbers. `auto` is 1 for tables of up to 2,000 training rows, 2,000 / rows
    for larger ones, and 0.2 from 10,000 rows on: a subset of more rows takes longer to train, and the
    predictor of a large pool needs fewer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    fit: Counts = {"uniform": 4000, "bootstrap": 1000}
    validation: Counts = {"uniform": 200, "bootstrap": 50}
    test: Counts = {"uniform": 500, "deletion": 500, "bootstrap": 250}
    grown: Annotated[float, Field(gt=0)] = 0.25
    scale: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    block: Annotated[int, Field(ge=1)] = 250
    seed: Seed = 0

    @property
    def total(self) -> int:
        """Number of subsets of all roles."""
        return sum(sum(counts.values()) for counts in (self.fit, self.validation, self.test))

    def counts(self, points: int) -> dict[Role, Counts]:
        """How many subsets of each role and design are drawn of a pool of so many points."""
        roles: dict[Role, Counts] = {
            "test": self.test, "validation": self.validation, "fit": self.fit,
        }  # fmt: skip
        automatic = self.scale == "auto"
        share = max(LEAST_SCALE, min(1.0, ALL_UP_TO / points)) if automatic else float(self.scale)
        least = FEWEST if automatic else 1
        return {
            role: {
                design: max(min(least, count), round(share * count))
                for design, count in counts.items()
            }
            for role, counts in roles.items()
        }

    def drawn(self, points: int) -> int:
        """Number of subsets of all roles that are drawn of a pool of so many points."""
        return sum(sum(counts.values()) for counts in self.counts(points).values())

    def for_points(self, points: int) -> "SubsetsConfig":
        """The settings that draw the same subsets of such a pool with a scale of 1."""
        return self.model_copy(update={**self.counts(points), "scale": 1.0})


def require_known(what: str, name: str, known: tuple[str, ...]) -> None:
    """Refuse a name that is not among the known ones."""
    if name not in known:
        raise InvalidInput(f"unknown {what} {name!r}; known: {', '.join(known)}")
