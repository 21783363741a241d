"""The subsets of a config: all different, and with every class where that can be."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from modelpred.dataset import seeded_generator
from modelpred.dataset.growing import Earlier
from modelpred.errors import InvalidInput
from modelpred.subsets.classes import SIZES, Classes
from modelpred.subsets.config import DESIGNS, ROLES, SubsetsConfig
from modelpred.subsets.designs import (
    DRAWN_BYTES,
    DRAWN_TOGETHER,
    WRITTEN_BYTES,
    Row,
    Rows,
    compact,
    draw_any,
    draw_block,
    every_subset,
    keys,
    require_points,
    require_subset_memory,
    support_size,
)
from modelpred.subsets.rows import Subsets, joined

ENUMERABLE = 2**22  # cells; designs with fewer subsets times points are listed where it helps


def draw_subsets(
    config: SubsetsConfig,
    *,
    points: int,
    labels: Tensor | None = None,
    earlier: Sequence[Earlier] = (),
    written: bool = False,
) -> Subsets:
    """The subsets of the config: test, validation, fit, and design after design.

    No two are equal. A larger number of a design keeps its earlier subsets; only one that would repeat a
    subset of an earlier role or design is replaced. Subsets that lack a class are drawn again
    (`modelpred.subsets.classes`); they stay where no draw has every class.

    Args:
        config: how many of each, and the scale for large pools.
        points: number of rows now.
        labels: class of each row as an index; None for a regression, which lacks nothing.
        earlier: where the rows of the versions before are, oldest first; none for a new pool.
        written: whether `write_subsets` follows, which needs more memory.

    Raises:
        InvalidInput: a role without subsets, more asked for than there are distinct ones or than
            memory can hold, or labels of another number of rows.
    """
    require_points(points)
    asked = config.drawn(points)
    require_subset_memory(asked, points, each=WRITTEN_BYTES if written else DRAWN_BYTES)
    if labels is not None and len(labels) != points:
        raise InvalidInput(f"labels of {len(labels)} rows were given for {points} points")
    drawn, redrawn = _drawn(
        config,
        Classes(None if labels is None else labels.numpy(force=True), points=points),
        earlier,
        points=points,
    )
    named = zip(drawn.ids, drawn.roles, drawn.designs, strict=True)
    counts = Counter(f"{role}-{design}" for name, role, design in named if name in redrawn)
    return replace(drawn, redrawn=dict(counts))


def _drawn(
    config: SubsetsConfig, classes: Classes, earlier: Sequence[Earlier], *, points: int
) -> tuple[Subsets, set[str]]:
    """The subsets, and the ids of those that were drawn again because they lacked a class."""
    require_points(points)
    asked = config.counts(points)
    drawer = _Drawer(seed=config.seed, points=points, classes=classes)
    continued, redrawn = _continued(config, earlier, drawer, points=points)
    ids: list[str] = []
    roles: list[str] = []
    designs: list[str] = []
    weights: list[Rows] = []
    for role in ROLES:
        counts = asked[role]
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
            named = [f"{role}-{design}-{grown}{number:06d}" for number in range(count)]
            found, again = drawer.distinct(role, design, count, scope=grown)
            redrawn |= {named[at] for at in again}
            ids += named
            roles += [role] * count
            designs += [design] * count
            weights += found
    drawn = Subsets(
        tuple(ids), tuple(roles), tuple(designs), torch.from_numpy(np.concatenate(weights))
    )
    return (joined([drawn, *continued]) if continued else drawn), redrawn


def _continued(
    config: SubsetsConfig, earlier: Sequence[Earlier], drawer: "_Drawer", *, points: int
) -> tuple[list[Subsets], set[str]]:
    """The subsets for the fit of the earlier version, with weights at the present places of its rows.

    The second part names those that were drawn again for that version because they lacked a class.
    """
    continued: list[Subsets] = []
    redrawn: set[str] = set()
    for version, pool in enumerate(earlier):
        # Drawn as it was then; what had no version before it was drawn in full.
        pool_only = [replace(pool, places=tuple(range(pool.points)))] * version
        labels = np.array(pool.labels) if pool.labels else None
        drawn, again = _drawn(
            config, Classes(labels, points=pool.points), pool_only, points=pool.points
        )
        redrawn |= again
        drawn = drawn.select(role="fit")
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
        continued.append(moved.at(fresh))
    return continued, redrawn


class _Drawer:
    """Draws subsets of one pool and never the same one twice."""

    def __init__(self, *, seed: int, points: int, classes: Classes) -> None:
        self._seed = seed
        self._points = points
        self._classes = classes
        self._drawn: set[bytes] = set()
        self._remaining: dict[str, dict[bytes, Row]] = {}
        self._exhausted: set[str] = set()  # designs without a new subset that has every class

    def take(self, weights: Rows) -> bool:
        """Whether the one subset was not drawn before; from now on it was."""
        key = next(iter(keys(weights)))
        if key in self._drawn:
            return False
        self._drawn.add(key)
        return True

    def distinct(
        self, role: str, design: str, count: int, *, scope: str = ""
    ) -> tuple[list[Rows], list[int]]:
        """Blocks of weights, `count` rows in all, none of which was drawn before.

        The second part are the places of the rows that were drawn again because they lacked a
        class. `scope` distinguishes drawings of one role and design.
        """
        if count > 0:
            self._require_enough(role, design, count)
        whole = design in ("prefix", "leave_one_out")  # a block is one order of all points
        size = self._points if whole else DRAWN_TOGETHER
        drawn: list[Rows] = []
        redrawn: list[int] = []
        for block, start in enumerate(range(0, count, size)):
            named = ("subsets", role, design, *([scope] if scope else []), block)
            weights, again = self._block(design, size, min(size, count - start), named)
            drawn.append(compact(weights))
            redrawn += [start + slot for slot in again]
        return drawn, redrawn

    def _block(
        self, design: str, size: int, count: int, named: Sequence[str | int]
    ) -> tuple[Rows, list[int]]:
        """The first `count` weights of a block, and the places of those that were redrawn."""
        # Always a whole block, so that the numbers do not depend on how many are wanted.
        weights = draw_block(design, self._points, size, seeded_generator(self._seed, *named))
        complete = self._classes.all_in(weights)
        redrawn: set[int] = set()
        if design == "prefix" and not complete.all():
            weights, lacking = self._classes.put_first(weights), ~complete
            complete = self._classes.all_in(weights)
            redrawn.update(np.flatnonzero((lacking & complete)[:count]).tolist())
        weights = weights[:count]
        for slot, key in enumerate(keys(weights)):
            own = slice(slot, slot + 1)
            repeated = key in self._drawn
            if repeated:
                weights[slot] = self._again(design, seeded_generator(self._seed, *named, slot))
                complete[slot] = self._classes.all_in(weights[own])[0]
            # A short prefix of an order lacks classes whatever the order.
            if not complete[slot] and (repeated or design != "prefix"):
                generator = seeded_generator(self._seed, *named, slot, "classes")
                found = self._complete(design, int(weights[own].sum()), generator)
                if found is not None:
                    weights[slot] = found
                    redrawn.add(slot)
            self._drawn.update(keys(weights[own]))
        return weights, sorted(redrawn)

    def _again(self, design: str, generator: np.random.Generator) -> Row:
        """Weights [points] that were not drawn before."""
        for doubling in range(12):
            weights = draw_any(design, self._points, 2**doubling, generator)
            for row, key in enumerate(keys(weights)):
                if key not in self._drawn:
                    return weights[row]
        if self._enumerable(design):  # nearly all are taken: choose among the few that are left
            left = self._left(design)
            return left[generator.integers(len(left))]
        raise InvalidInput(
            f"nearly all {design} subsets of {self._points} points are taken; ask for fewer"
        )

    def _complete(self, design: str, size: int, generator: np.random.Generator) -> Row | None:
        """Weights [points] with every class that were not drawn before; None where none is found."""
        if design in self._exhausted:
            return None
        sizes = self._classes.sizes(design)
        for trial in range(SIZES if len(sizes) else 0):
            if trial > 0 or size not in sizes:
                size = int(generator.choice(sizes))
            found = self._classes.draw(design, size, generator)
            if found is not None and keys(found[None])[0] not in self._drawn:
                return found
        if not self._enumerable(design):
            return None
        left = [row for row in self._left(design) if self._classes.all_in(row[None])[0]]
        if left:
            return left[generator.integers(len(left))]
        self._exhausted.add(design)
        return None

    def _require_enough(self, role: str, design: str, count: int) -> None:
        support = support_size(design, self._points)
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
        return support_size(design, self._points) * self._points <= ENUMERABLE

    def _left(self, design: str) -> list[Row]:
        """What is not drawn yet of a design whose subsets can be listed."""
        known = self._remaining.get(design)
        if known is None:
            support = every_subset(design, self._points)
            known = {weights.tobytes(): weights for weights in support}
        left = {key: weights for key, weights in known.items() if key not in self._drawn}
        self._remaining[design] = left
        return list(left.values())
