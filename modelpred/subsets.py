"""Subsets of the points to train targets on, as rows of weights [subsets, points].

A weight says how often a point is taken: 0 or 1, or a count in a bootstrap resample. Designs,
for N points:

    leave_one_out  one point removed
    addition       the first N/2 points and k of the others, k uniform in [1, N - N/2]
    deletion       k points removed, k uniform in [1, N/2]
    uniform        size uniform in [max(3, N/10), N], members uniform given the size
    prefix         the first 1, 2, ..., N points of a random order, order after order
    bootstrap      N draws with replacement

Every block of drawings has a generator of its own, seeded by (seed, "subsets", role, design,
block), so that asking for more keeps the earlier subsets. No subset stands in two roles or twice
in one: the held-out roles (test, validation) draw first, and what would repeat is drawn again in
its place while nothing else moves.

Of a pool that grew (`Earlier`), the fit keeps the subsets that were drawn of its rows before, except
where they take a row that went or changed, and a share of as many is drawn of all rows anew. The
held-out roles are drawn of all rows.
"""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

import numpy as np
import polars as pl
import torch
from jaxtyping import Int, Int32, Int64, UInt8
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from modelpred.dataset import seeded_generator
from modelpred.dataset.files import parquet_bytes
from modelpred.dataset.growing import Earlier
from modelpred.errors import InvalidInput
from modelpred.sealed import write_atomically

# Fewest distinct subsets first: in this order designs draw, so that the scarce ones find theirs.
Design = Literal["leave_one_out", "addition", "deletion", "uniform", "prefix", "bootstrap"]
Role = Literal["test", "validation", "fit"]  # in the order in which they draw

DESIGNS: tuple[Design, ...] = get_args(Design)
ROLES: tuple[Role, ...] = get_args(Role)

SMALLEST_POOL = 3
DRAWN_TOGETHER = 250  # not the shard size, which may change without changing the subsets
_GROWN = re.compile(r"-grown\d+(?=-)")  # in the names of subsets that were drawn as a pool grew
ENUMERABLE = 2**22  # cells; designs with fewer subsets times points are listed where it helps

Rows = UInt8[np.ndarray, "subsets points"] | Int32[np.ndarray, "subsets points"]
Row = UInt8[np.ndarray, " points"] | Int32[np.ndarray, " points"]
Counts = dict[Design, Annotated[int, Field(ge=0)]]


class SubsetsConfig(BaseModel):
    """How many subsets of which design, for each role."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    fit: Counts = {"uniform": 4000, "bootstrap": 1000}
    validation: Counts = {"uniform": 200, "bootstrap": 50}
    test: Counts = {"uniform": 500, "deletion": 500, "bootstrap": 250}
    grown: Annotated[float, Field(gt=0)] = 0.25
    block: Annotated[int, Field(ge=1)] = 250
    seed: int = 0


@dataclass(frozen=True)
class Subsets:
    """Subsets with what they are for.

    Attributes:
        ids: `fit-uniform-000123`, unique.
        roles: fit, validation or test.
        designs: the design that drew each.
        weights: uint8 [subsets, points]; int32 when a count is over 255.
    """

    ids: tuple[str, ...]
    roles: tuple[str, ...]
    designs: tuple[str, ...]
    weights: UInt8[Tensor, "subsets points"] | Int32[Tensor, "subsets points"]

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
        _require_known("role", role or ROLES[0], ROLES)
        _require_known("design", design or DESIGNS[0], DESIGNS)
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


def draw(
    design: str, *, points: int, count: int, generator: np.random.Generator
) -> UInt8[Tensor, "subsets points"] | Int32[Tensor, "subsets points"]:
    """Weights [count, points] of one design; repeats are not looked for.

    uint8; int32 when a count is over 255. leave_one_out alone never repeats, so its count is at
    most the number of points.

    Raises:
        InvalidInput: unknown design, a negative count, or too few points.
    """
    _require_known("design", design, DESIGNS)
    _require_points(points)
    if count < 0:
        raise InvalidInput(f"the number of subsets must be at least 0, got {count}")
    if design == "leave_one_out" and count > points:
        raise InvalidInput(f"{points} points have {points} leave_one_out subsets, not {count}")
    return torch.from_numpy(_compact(_draw(design, points, count, generator)))


def draw_subsets(config: SubsetsConfig, *, points: int, earlier: Sequence[Earlier] = ()) -> Subsets:
    """The subsets that the config asks for: test, validation, fit, and design after design.

    No two are equal. More of a design keeps its earlier subsets; only one that would repeat a
    subset of an earlier role or design is replaced.

    Args:
        config: how many of each.
        points: number of rows now.
        earlier: where the rows of the versions before are, oldest first; none for a new pool.

    Raises:
        InvalidInput: a role without subsets, or more asked for than there are distinct ones.
    """
    _require_points(points)
    drawer = _Drawer(seed=config.seed, points=points)
    kept = _kept(config, earlier, drawer, points=points)
    ids: list[str] = []
    roles: list[str] = []
    designs: list[str] = []
    weights: list[Rows] = []
    for role in ROLES:
        counts: dict[Design, int] = getattr(config, role)
        grown = f"grown{len(earlier)}-" if earlier and role == "fit" else ""
        if not any(counts.values()):
            raise InvalidInput(
                f"subsets.{role} asks for no subsets; ask for at least 1 of a design "
                f"({', '.join(DESIGNS)})"
            )
        for design in DESIGNS:
            count = counts.get(design, 0)
            if grown:
                count = math.ceil(config.grown * count)
            ids += [f"{role}-{design}-{grown}{number:06d}" for number in range(count)]
            roles += [role] * count
            designs += [design] * count
            weights += drawer.distinct(role, design, count, scope=grown)
    drawn = Subsets(
        tuple(ids), tuple(roles), tuple(designs), torch.from_numpy(np.concatenate(weights))
    )
    return _joined([drawn, *kept]) if kept else drawn


def _kept(
    config: SubsetsConfig, earlier: Sequence[Earlier], drawer: "_Drawer", *, points: int
) -> list[Subsets]:
    """The subsets for the fit that were drawn of the rows before, where those rows are now."""
    kept: list[Subsets] = []
    for version, pool in enumerate(earlier):
        # Drawn as it was then; what had no version before it was drawn in full.
        alone = [Earlier(pool.points, tuple(range(pool.points)))] * version
        drawn = draw_subsets(config, points=pool.points, earlier=alone).select(role="fit")
        if version:
            new = f"-grown{version}-"
            drawn = drawn.at([at for at, name in enumerate(drawn.ids) if new in name])
        places = np.array(pool.places)
        here = places >= 0
        weights = np.zeros((len(drawn), points), dtype=drawn.weights.numpy().dtype)
        weights[:, places[here]] = drawn.weights.numpy()[:, here]
        whole = ~drawn.weights.numpy()[:, ~here].any(axis=1)
        fresh = [at for at in np.flatnonzero(whole).tolist() if drawer.take(weights[at : at + 1])]
        moved = Subsets(drawn.ids, drawn.roles, drawn.designs, torch.from_numpy(weights))
        kept.append(moved.at(fresh))
    return kept


def _joined(parts: Sequence[Subsets]) -> Subsets:
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


def subsets_table(subsets: Subsets) -> pl.DataFrame:
    """A row per subset: id, role, design, size and weights."""
    return pl.DataFrame(
        {
            "subset_id": pl.Series(subsets.ids, dtype=pl.String),
            "role": pl.Series(subsets.roles, dtype=pl.String),
            "design": pl.Series(subsets.designs, dtype=pl.String),
            "size": subsets.sizes.numpy(),
            "weights": subsets.weights.numpy(),
        }
    )


def write_subsets(subsets: Subsets, folder: Path) -> None:
    """Write subsets.parquet and subsets.json (how many of each, and the table's SHA-256)."""
    folder.mkdir(parents=True, exist_ok=True)
    table = subsets_table(subsets)
    content = parquet_bytes(table)
    counts = table.group_by("role", "design", maintain_order=True).len()
    description = _Description(
        schema_version=1,
        points=subsets.weights.shape[1],
        counts={f"{role}-{design}": count for role, design, count in counts.iter_rows()},
        sha256=hashlib.sha256(content).hexdigest(),
    )
    write_atomically(folder / "subsets.parquet", content)
    # Last: it seals the table, so that a killed write is never taken for a finished one.
    written = json.dumps(description.model_dump(), indent=2) + "\n"
    write_atomically(folder / "subsets.json", written.encode())


def read_subsets(folder: Path) -> Subsets:
    """The subsets written there.

    Raises:
        InvalidInput: a file is missing or damaged.
    """
    for name in ("subsets.json", "subsets.parquet"):
        if not (folder / name).is_file():
            raise InvalidInput(f"{folder / name} is missing; run the subsets stage first")
    path = folder / "subsets.parquet"
    content = path.read_bytes()
    try:
        description = _Description.model_validate_json((folder / "subsets.json").read_bytes())
    except ValidationError as error:
        raise _mismatch(folder / "subsets.json", error.errors()[0]["msg"]) from error
    if hashlib.sha256(content).hexdigest() != description.sha256:
        raise _mismatch(path, "its content is not the one that subsets.json names")
    table = pl.read_parquet(content)
    subsets = Subsets(
        ids=tuple(table["subset_id"]),
        roles=tuple(table["role"]),
        designs=tuple(table["design"]),
        weights=torch.from_numpy(table["weights"].to_numpy(writable=True)),
    )
    if tuple(subsets.weights.shape) != (sum(description.counts.values()), description.points):
        raise _mismatch(path, "its shape is not the one that subsets.json names")
    if subsets.sizes.tolist() != table["size"].to_list():
        raise _mismatch(path, "its sizes are not the sums of its weights")
    return subsets


class _Description(BaseModel):
    """subsets.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: Literal[1]
    points: int
    counts: dict[str, int]
    sha256: str


class _Members(NamedTuple):
    """A design of 0/1 weights: the first `always` points and others up to a size in a range."""

    smallest: int
    largest: int
    always: int = 0


def _members(design: str, points: int) -> _Members:
    return {
        "leave_one_out": _Members(points - 1, points - 1),
        "addition": _Members(points // 2 + 1, points, always=points // 2),
        "deletion": _Members(points - points // 2, points - 1),
        "uniform": _Members(max(3, math.ceil(points / 10)), points),
        "prefix": _Members(1, points),
    }[design]


def _draw(design: str, points: int, count: int, generator: np.random.Generator) -> Rows:
    """Weights [count, points] as they come from the design, in the order of the design."""
    if design == "prefix":
        orders = range(math.ceil(count / points))
        ranks = [generator.permutation(points) for _ in orders]
        sizes = np.arange(1, points + 1)[:, None]
        drawn = [(rank < sizes).astype(np.uint8) for rank in ranks]
        return np.concatenate([np.zeros((0, points), dtype=np.uint8), *drawn])[:count]
    if design == "leave_one_out":
        removed = generator.permutation(points)[:count]
        return (np.arange(points) != removed[:, None]).astype(np.uint8)
    return _draw_any(design, points, count, generator)


def _draw_any(design: str, points: int, count: int, generator: np.random.Generator) -> Rows:
    """Weights [count, points], each independent of the others."""
    if design == "bootstrap":
        drawn = generator.integers(points, size=(count, points))
        cells = drawn + points * np.arange(count)[:, None]
        counts = np.bincount(cells.ravel(), minlength=count * points)
        return counts.astype(np.int32).reshape(count, points)
    smallest, largest, always = _members(design, points)
    others = generator.integers(smallest - always, largest - always + 1, size=(count, 1))
    weights = np.ones((count, points), dtype=np.uint8)
    weights[:, always:] = generator.permuted(np.arange(points - always) < others, axis=1)
    return weights


def _support_size(design: str, points: int) -> int:
    """Number of distinct subsets that the design can draw."""
    if design == "bootstrap":
        return math.comb(2 * points - 1, points)
    smallest, largest, always = _members(design, points)
    sizes = range(smallest - always, largest - always + 1)
    return sum(math.comb(points - always, size) for size in sizes)


def _support(design: str, points: int) -> Iterator[Row]:
    """Every distinct weights [points] that the design can draw."""
    if design == "bootstrap":
        for drawn in itertools.combinations_with_replacement(range(points), points):
            yield np.bincount(drawn, minlength=points).astype(np.uint8)
        return
    smallest, largest, always = _members(design, points)
    for size in range(smallest - always, largest - always + 1):
        for others in itertools.combinations(range(always, points), size):
            weights = np.zeros(points, dtype=np.uint8)
            weights[:always] = 1
            weights[list(others)] = 1
            yield weights


class _Drawer:
    """Draws subsets of one pool and never the same one twice."""

    def __init__(self, *, seed: int, points: int) -> None:
        self._seed = seed
        self._points = points
        self._drawn: set[bytes] = set()

    def take(self, weights: Rows) -> bool:
        """Whether the one subset was not drawn before; from now on it was."""
        key = next(iter(_keys(weights)))
        if key in self._drawn:
            return False
        self._drawn.add(key)
        return True

    def distinct(self, role: str, design: str, count: int, *, scope: str = "") -> list[Rows]:
        """Blocks of weights, `count` rows in all, none of which was drawn before.

        `scope` tells drawings of one role and design apart.
        """
        if count > 0:
            self._require_enough(role, design, count)
        whole = design in ("prefix", "leave_one_out")  # a block is one order of all points
        size = self._points if whole else DRAWN_TOGETHER
        drawn: list[Rows] = []
        for block, start in enumerate(range(0, count, size)):
            # Always a whole block, so that the numbers do not depend on how many are wanted.
            named = ("subsets", role, design, *([scope] if scope else []), block)
            generator = seeded_generator(self._seed, *named)
            weights = _draw(design, self._points, size, generator)[: count - start]
            for slot, key in enumerate(_keys(weights)):
                if key in self._drawn:
                    again = seeded_generator(self._seed, *named, slot)
                    weights[slot] = self._again(design, again)
                    self._drawn.update(_keys(weights[slot : slot + 1]))
                else:
                    self._drawn.add(key)
            drawn.append(_compact(weights))
        return drawn

    def _again(self, design: str, generator: np.random.Generator) -> Row:
        """Weights [points] that were not drawn before."""
        for doubling in range(12):
            weights = _draw_any(design, self._points, 2**doubling, generator)
            for row, key in enumerate(_keys(weights)):
                if key not in self._drawn:
                    return weights[row]
        if self._enumerable(design):  # nearly all are taken: choose among the few that are left
            left = self._left(design)
            return left[generator.integers(len(left))]
        raise InvalidInput(
            f"nearly all {design} subsets of {self._points} points are taken; ask for fewer"
        )

    def _require_enough(self, role: str, design: str, count: int) -> None:
        support = _support_size(design, self._points)
        if count <= support - len(self._drawn):
            return
        left = len(self._left(design)) if self._enumerable(design) else support
        if count > left:
            raise InvalidInput(
                f"subsets.{role}.{design} asks for {count}, but of the {support} distinct "
                f"{design} subsets of {self._points} points only {left} are left (no subset "
                f"stands in two roles or twice in one); ask for at most {left}"
            )

    def _enumerable(self, design: str) -> bool:
        return _support_size(design, self._points) * self._points <= ENUMERABLE

    def _left(self, design: str) -> list[Row]:
        support = _support(design, self._points)
        return [weights for weights in support if weights.tobytes() not in self._drawn]


def _keys(weights: Rows) -> list[bytes]:
    """What tells rows apart: equal counts give equal keys, whatever the type of the array."""
    if weights.dtype == np.uint8:
        return [row.tobytes() for row in weights]
    return [_compact(row).tobytes() for row in weights]


def _compact(weights: Int[np.ndarray, "..."] | UInt8[np.ndarray, "..."]) -> Rows | Row:
    """The same weights as uint8 where they fit, else as int32."""
    fits = weights.dtype == np.uint8 or weights.max(initial=0) <= 255
    return weights.astype(np.uint8 if fits else np.int32, copy=False)


def _require_known(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise InvalidInput(f"unknown {what} {name!r}; known: {', '.join(known)}")


def _require_points(points: int) -> None:
    if points < SMALLEST_POOL:
        raise InvalidInput(f"subsets need at least {SMALLEST_POOL} points, got {points}")


def _mismatch(path: Path, why: str) -> InvalidInput:
    return InvalidInput(f"{path} cannot be used: {why}; run the subsets stage again")
