"""Selects rows of a table and splits them into training rows (the pool) and test rows.

A built-in table is shuffled with a generator seeded by (seed, "dataset") and cut. Classes keep their
shares in the training rows, and every class has at least one training row.

A user's table may grow: the role of a row depends only on the seed and on the rows before it, so
appended rows do not change it. Test rows are drawn from every class in the order of the table, one
from every 1/share rows, and never the first row. If rows belong to groups, whole groups are drawn in
the same way, regardless of classes.
"""

import numpy as np
import polars as pl
from jaxtyping import Bool, Float64, Int64

from modelpred.dataset.config import AUTO, SMALLEST_POOL, DatasetConfig
from modelpred.dataset.seeds import seeded_generator
from modelpred.dataset.tables import Table
from modelpred.errors import InvalidInput

MOST_CLASSES = 100  # labels with more different values are numbers, not classes

Labels = Int64[np.ndarray, " rows"] | Float64[np.ndarray, " rows"]
Places = Int64[np.ndarray, " places"]


def split(
    table: Table, labels: Labels, classes: tuple[str, ...], config: DatasetConfig
) -> tuple[Int64[np.ndarray, " points"], Int64[np.ndarray, " test_points"]]:
    """Row numbers of the training rows and of the test rows, disjoint and in random order.

    Raises:
        InvalidInput: there are too few rows, or a class has no training row.
    """
    generator = seeded_generator(config.seed, "dataset")
    if table.held_out is None:
        points, test = _split_sizes(table, config)
        return _split(
            labels, classes, name=table.name, points=points, test=test, generator=generator
        )
    held_out = np.array(table.held_out, dtype=bool)
    pool, test_rows = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    if config.points != AUTO:
        if config.points > len(pool):
            raise InvalidInput(
                f"{table.name} has {len(pool)} rows beside its test rows, but dataset.points is "
                f"{config.points}; set it to fewer"
            )
        _require_places(config.points, classes, table.name)
        sizes = np.bincount(labels[pool]) if classes else np.array([len(pool)])
        codes = labels if classes else np.zeros(len(labels), dtype=np.int64)
        shuffled = generator.permutation(pool)
        shares = shares_of(config.points, sizes, at_least=1)
        pool = np.concatenate(
            [shuffled[codes[shuffled] == index][:size] for index, size in enumerate(shares)]
        )
    _require_rows(table, labels[pool], classes, test=len(test_rows))
    return generator.permutation(pool), generator.permutation(test_rows)


def _require_places(points: int, classes: tuple[str, ...], name: str) -> None:
    if points < len(classes):
        raise InvalidInput(
            f"{points} training rows (dataset.points) are fewer than the {len(classes)} classes of "
            f"{name}; set at least {len(classes)}"
        )


def _require_rows(table: Table, labels: Labels, classes: tuple[str, ...], *, test: int) -> None:
    if len(labels) < SMALLEST_POOL or test < 1:
        raise InvalidInput(
            f"{table.name} has {len(labels)} rows to train on and {test} to test on; expected at "
            f"least {SMALLEST_POOL} and 1"
        )
    for index, name in enumerate(classes):
        if not (labels == index).any():
            raise InvalidInput(
                f"class {name!r} of {table.label!r} has no row to train on in {table.name}; name "
                "other test rows (dataset.test), or remove the class"
            )


def selected_rows(
    rows: Places, labels: pl.Series, ranks: Float64[np.ndarray, " rows"], *, most: int | None
) -> Int64[np.ndarray, " selected"]:
    """At most `most` of these rows: each class's share, at least one, with the lowest ranks.

    Args:
        rows: numbers of rows.
        labels: of all rows of the table.
        ranks: of all rows of the table.
        most: None: all.
    """
    if most is None or len(rows) <= most:
        return rows
    codes = labels.rank("dense").to_numpy().astype(np.int64)[rows] - 1
    if codes.max() >= MOST_CLASSES:
        codes = np.zeros_like(codes)
    sizes = np.bincount(codes)
    shares = shares_of(most, sizes, at_least=min(1, most // len(sizes)))
    order = np.lexsort((ranks[rows], codes))
    starts = np.cumsum(sizes) - sizes
    within = np.arange(len(rows)) - np.repeat(starts, sizes)
    return rows[order[within < np.repeat(shares, sizes)]]


def held_out_rows(
    labels: pl.Series | None, *, rows: int, share: float, seed: int
) -> Bool[np.ndarray, " rows"]:
    """Whether each row is a test row, for this share of each class; labels None for a regression."""
    if labels is None:
        return _one_of_each(rows, share, seed, "")
    held_out = np.zeros(rows, dtype=bool)
    words = labels.to_numpy()
    for name in labels.unique().sort():
        of_class = np.flatnonzero(words == name)
        held_out[of_class] = _one_of_each(len(of_class), share, seed, name)
    return held_out


def held_out_groups(groups: pl.Series, *, share: float, seed: int) -> Bool[np.ndarray, " rows"]:
    """Whether each row is a test row, for this share of the groups and at least one group.

    If there are fewer than 1/share groups, one of them is drawn, but not the first.
    """
    numbers = groups.rank("dense").to_numpy().astype(np.int64) - 1
    first_rows = np.unique(numbers, return_index=True)[1]
    order = np.argsort(np.argsort(first_rows))[numbers]  # groups by their first row
    drawn = _one_of_each(len(first_rows), share, seed, "groups")
    if not drawn.any() and len(drawn) > 1:
        drawn[seeded_generator(seed, "few groups").integers(1, len(drawn))] = True
    return drawn[order]


def _one_of_each(count: int, share: float, seed: int, name: str) -> Bool[np.ndarray, " places"]:
    """One random position of every 1/share positions, never the first of all.

    Positions added at the end do not change earlier ones.
    """
    generator = seeded_generator(seed, "held out", name)
    drawn = np.zeros(count, dtype=bool)
    for stratum in range(int(np.ceil(count * share)) + 1):
        start = int(np.ceil(stratum / share - 1e-9))
        end = int(np.ceil((stratum + 1) / share - 1e-9))
        position = start + int(generator.random() * (end - start))
        if 0 < position < count:
            drawn[position] = True
    return drawn


def _split_sizes(table: Table, config: DatasetConfig) -> tuple[int, int]:
    """Number of training and of test rows; `auto` is the usual number, or fewer if there are fewer."""
    rows = len(table.rows)
    setting = config.test
    if isinstance(setting, float):
        setting = max(1, round(setting * rows))
    least_test = setting if isinstance(setting, int) else 1
    points = min(table.points, rows - least_test) if config.points == AUTO else config.points
    test = setting if isinstance(setting, int) else min(table.test, rows - points)
    if points < SMALLEST_POOL:
        raise InvalidInput(
            f"{table.name} has {rows} rows: with {least_test} for testing (dataset.test) fewer "
            f"than {SMALLEST_POOL} are left to train on; set fewer test rows"
        )
    if test < 1 or points + test > rows:
        number = "at least 1" if test < 1 else str(test)
        raise InvalidInput(
            f"{table.name} has {rows} rows, but dataset.points sets {points} training rows and "
            f"dataset.test {number} test rows; set fewer"
        )
    return points, test


def _split(
    labels: Labels,
    classes: tuple[str, ...],
    *,
    name: str,
    points: int,
    test: int,
    generator: np.random.Generator,
) -> tuple[Int64[np.ndarray, " points"], Int64[np.ndarray, " test_points"]]:
    """Row numbers of the training rows and of the test rows, disjoint and in random order."""
    order = generator.permutation(len(labels))
    if not classes:
        return order[:points], order[points : points + test]
    _require_places(points, classes, name)
    sizes = np.bincount(labels, minlength=len(classes))
    pool_sizes = shares_of(points, sizes, at_least=1)
    test_sizes = shares_of(test, sizes - pool_sizes, at_least=0)
    pool, held_out = [], []
    for index in range(len(classes)):
        rows = order[labels[order] == index]
        pool.append(rows[: pool_sizes[index]])
        held_out.append(rows[pool_sizes[index] :][: test_sizes[index]])
    return generator.permutation(np.concatenate(pool)), generator.permutation(
        np.concatenate(held_out)
    )


def shares_of(
    total: int, sizes: Int64[np.ndarray, " classes"], *, at_least: int
) -> Int64[np.ndarray, " classes"]:
    """Split `total` over classes by size, largest remainders first, at most the size of each."""
    exact = total * sizes / sizes.sum()
    shares = np.clip(np.floor(exact).astype(np.int64), at_least, sizes)
    while shares.sum() != total:
        missing = exact - shares
        if shares.sum() < total:
            missing[shares >= sizes] = -np.inf
            shares[missing.argmax()] += 1
        else:  # the minimum gave small classes more than their share
            missing[shares <= at_least] = np.inf
            shares[missing.argmin()] -= 1
    return shares
