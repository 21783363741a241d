"""From a source table to points: split, encode the label, scale.

The split shuffles with a generator seeded by (seed, "dataset"). Classes keep their shares in the
training rows (the pool) and every class has at least one row there. Scalers see training rows
only:

    standardise        (x - mean of the column) / standard deviation of the column
    largest_row_norm   x / max_i ‖x_i‖, the published setting
    none               x

`flip` plants wrong labels: that share of the training rows, drawn by a generator of their own so
that the split stays as it is, gets another class at random. They are for judging how well a method
finds them. The data set remembers the labels as they were; methods see the planted ones alone, and
test rows stay clean.
"""

import hashlib
import json
from dataclasses import astuple, dataclass, fields, replace
from typing import Annotated, Literal

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float64, Int64
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from modelpred.dataset.tables import InvalidInput, Table, load_table

SMALLEST_POOL = 3

ScalingName = Literal["standardise", "largest_row_norm", "none"]


class DatasetConfig(BaseModel):
    """Which rows the study is about."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    source: str = "spam"
    file: str | None = None
    points: Annotated[int, Field(ge=SMALLEST_POOL)] | Literal["auto"] = "auto"
    test: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    scaling: ScalingName = "standardise"
    flip: Annotated[float, Field(ge=0, lt=1)] = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Scaling:
    """How cells became features: (cell - offset) / divisor, column by column."""

    name: ScalingName
    offset: tuple[float, ...]
    divisor: tuple[float, ...]

    def __call__(
        self, cells: Float64[Tensor, "points features"]
    ) -> Float64[Tensor, "points features"]:
        """Features from unscaled cells."""
        offset = torch.tensor(self.offset, dtype=torch.float64)
        return (cells - offset) / torch.tensor(self.divisor, dtype=torch.float64)


@dataclass(frozen=True)
class Dataset:
    """Points to train on and to test on.

    Attributes:
        name: the source table's name.
        features: float64 [points, features], scaled.
        labels: [points], int64 class index, or float64 for regression.
        test_features: the same for the test rows.
        test_labels: the same for the test rows.
        row_ids: row number of each point in the source table, as text.
        test_row_ids: the same for the test rows.
        feature_names: names of the feature columns.
        classes: original label names in the order of their index; empty for regression.
        rows: the original cells of the points, `row_id` first and the label last; the label is
            the planted one where one was.
        fingerprint: SHA-256 over all of the above and below.
        label_name: name of the label column.
        scaling: how features came from the cells.
        attribution: who made the table.
        original_labels: [points] before wrong labels were planted; None when none were.
    """

    name: str
    features: Float64[Tensor, "points features"]
    labels: Int64[Tensor, " points"] | Float64[Tensor, " points"]
    test_features: Float64[Tensor, "test_points features"]
    test_labels: Int64[Tensor, " test_points"] | Float64[Tensor, " test_points"]
    row_ids: tuple[str, ...]
    test_row_ids: tuple[str, ...]
    feature_names: tuple[str, ...]
    classes: tuple[str, ...]
    rows: pl.DataFrame
    fingerprint: str
    label_name: str
    scaling: Scaling
    attribution: str
    original_labels: Int64[Tensor, " points"] | None = None

    @property
    def mislabelled(self) -> Bool[Tensor, " points"] | None:
        """Which points have a planted label; None when none have. Never for a method to see."""
        return None if self.original_labels is None else self.labels != self.original_labels


def prepare(config: DatasetConfig) -> Dataset:
    """The data set that the config describes.

    Raises:
        InvalidInput: unknown table, too few rows, unusable cells or labels.
    """
    return prepare_table(load_table(config.source, file=config.file), config)


def prepare_table(table: Table, config: DatasetConfig) -> Dataset:
    """The data set made of that table, whatever `config.source` says.

    Raises:
        InvalidInput: too few rows, unusable cells or labels.
    """
    cells = _cells(table)
    labels, classes = _labels(table)
    points, test = _split_sizes(table, config)
    generator = seeded_generator(config.seed, "dataset")
    pool_rows, test_rows = _split(
        labels, classes, name=table.name, points=points, test=test, generator=generator
    )

    scaling = fit_scaling(config.scaling, torch.from_numpy(cells[pool_rows]))
    features = scaling(torch.from_numpy(cells))
    _require_finite(features, table)
    row_ids = table.rows["row_id"].to_list()
    dataset = Dataset(
        name=table.name,
        features=features[pool_rows],
        labels=torch.from_numpy(labels[pool_rows]),
        test_features=features[test_rows],
        test_labels=torch.from_numpy(labels[test_rows]),
        row_ids=tuple(row_ids[row] for row in pool_rows),
        test_row_ids=tuple(row_ids[row] for row in test_rows),
        feature_names=table.feature_names,
        classes=classes,
        rows=table.rows.select("row_id", *table.feature_names, table.label)[pool_rows],
        fingerprint="",
        label_name=table.label,
        scaling=scaling,
        attribution=table.attribution,
    )
    if config.flip:
        dataset = _with_wrong_labels(dataset, share=config.flip, seed=config.seed)
    return replace(dataset, fingerprint=content_fingerprint(dataset))


def _with_wrong_labels(dataset: Dataset, *, share: float, seed: int) -> Dataset:
    """The data set with another class at random in that share of its points, at least one."""
    if not dataset.classes:
        raise InvalidInput(
            f"dataset.flip is {share:g}, but the label {dataset.label_name!r} of {dataset.name} is "
            "a number and has no wrong class; set dataset.flip to 0"
        )
    generator = seeded_generator(seed, "flip")
    points, classes = len(dataset.labels), len(dataset.classes)
    chosen = torch.from_numpy(generator.permutation(points)[: max(1, round(share * points))])
    shifts = torch.from_numpy(generator.integers(1, classes, size=len(chosen)))
    labels = dataset.labels.clone()
    labels[chosen] = (labels[chosen] + shifts) % classes
    missing = [name for index, name in enumerate(dataset.classes) if not (labels == index).any()]
    if missing:
        raise InvalidInput(
            f"dataset.flip of {share:g} leaves no row of class {missing[0]!r} among {points}; ask "
            "for fewer wrong labels or another dataset.seed"
        )
    told = dataset.rows[dataset.label_name]
    # The planted class in the column's own type: 1 of a column of 0 and 1, "virginica" of names.
    words = pl.Series([dataset.classes[index] for index in labels.tolist()], dtype=pl.String)
    rows = dataset.rows.with_columns(words.cast(told.dtype).alias(dataset.label_name))
    return replace(dataset, labels=labels, rows=rows, original_labels=dataset.labels)


def fit_scaling(name: ScalingName, cells: Float64[Tensor, "points features"]) -> Scaling:
    """The scaling with constants from these cells alone.

    A column with one value is shifted, not divided; cells that are all zero stay as they are.
    """
    features = cells.shape[1]
    if name == "standardise":
        smallest, largest = cells.amin(dim=0), cells.amax(dim=0)
        deviation = cells.std(dim=0, correction=0)
        constant = (smallest == largest) | (deviation == 0)
        # The value itself, not its mean: summing 300 equal numbers may round.
        offset = torch.where(constant, smallest, cells.mean(dim=0))
        divisor = torch.where(constant, torch.ones_like(deviation), deviation)
        return Scaling(name, tuple(offset.tolist()), tuple(divisor.tolist()))
    largest_norm = cells.norm(dim=1).max().item() if name == "largest_row_norm" else 1.0
    return Scaling(name, (0.0,) * features, (largest_norm or 1.0,) * features)


def seeded_generator(seed: int, *scope: str | int) -> np.random.Generator:
    """A generator of its own for each (seed, scope), such as (0, "subsets", "fit", "uniform", 3)."""
    digest = hashlib.sha256(json.dumps([seed, *scope]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def content_fingerprint(dataset: Dataset) -> str:
    """SHA-256 over every field but the fingerprint itself.

    Numbers enter bit for bit and names with them, so that two data sets share a fingerprint only
    when everything that a later stage can read is equal.
    """
    digest = hashlib.sha256()
    for field in fields(dataset):
        if field.name == "fingerprint":
            continue
        part = getattr(dataset, field.name)
        if part is None:  # nothing was planted
            continue
        described, content = part, b""
        if isinstance(part, Tensor):
            array = part.numpy()
            described, content = [str(array.dtype), *array.shape], array.tobytes()
        elif isinstance(part, pl.DataFrame):
            described = [[column.name, str(column.dtype), column.to_list()] for column in part]
        elif isinstance(part, Scaling):
            described = astuple(part)
        digest.update(json.dumps([field.name, described, len(content)], default=str).encode())
        digest.update(content)
    return digest.hexdigest()


def _cells(table: Table) -> Float64[np.ndarray, "rows features"]:
    """Unscaled features."""
    columns = table.rows.select(table.feature_names)
    if not columns.columns:
        raise InvalidInput(f"{table.name} has no feature columns beside the label {table.label!r}")
    for column in columns:
        if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
            raise InvalidInput(
                f"column {column.name!r} of {table.name} holds {column.dtype}, expected numbers; "
                "encode or drop it"
            )
        values = column.cast(pl.Float64)
        unusable = ~(values.is_finite().fill_null(False))  # noqa: FBT003 - polars' own signature
        if unusable.any():
            _refuse_cells(table, column.name, unusable, "missing or not finite")
    return columns.cast(pl.Float64).to_numpy(order="c")


def _labels(
    table: Table,
) -> tuple[Int64[np.ndarray, " rows"] | Float64[np.ndarray, " rows"], tuple[str, ...]]:
    """Labels as class index with the names of the classes, or as numbers with none."""
    column = table.rows[table.label]
    if not table.classes:
        values = column.cast(pl.Float64)
        unusable = ~(values.is_finite().fill_null(False))  # noqa: FBT003 - polars' own signature
        if unusable.any():
            _refuse_cells(table, table.label, unusable, "missing or not finite")
        return values.to_numpy(writable=True), ()

    if column.null_count():
        _refuse_cells(table, table.label, column.is_null(), "missing")
    names = column.cast(pl.String)
    present = set(names)
    classes = tuple(name for name in table.classes if name in present)
    if len(classes) < 2:
        raise InvalidInput(
            f"the label {table.label!r} of {table.name} has one class "
            f"({', '.join(map(repr, sorted(present)))} in all {len(names)} rows); "
            "a classifier needs at least two"
        )
    unknown = sorted(present - set(classes))
    if unknown:
        raise InvalidInput(
            f"the label {table.label!r} of {table.name} holds {unknown[0]!r}, "
            f"expected one of {', '.join(table.classes)}"
        )
    index = {name: position for position, name in enumerate(classes)}
    return np.array([index[name] for name in names], dtype=np.int64), classes


def _refuse_cells(table: Table, column: str, unusable: pl.Series, what: str) -> None:
    first = table.rows["row_id"].to_list()[unusable.to_list().index(True)]
    count = int(unusable.sum())
    raise InvalidInput(
        f"column {column!r} of {table.name} has {count} {what} value{'s'[: count > 1]} "
        f"(first in row {first}); fill or remove"
    )


def _require_finite(features: Float64[Tensor, "rows features"], table: Table) -> None:
    usable = features.isfinite().all(dim=0).tolist()
    if not all(usable):
        column = table.feature_names[usable.index(False)]
        raise InvalidInput(
            f"column {column!r} of {table.name} holds values too large to scale in float64; "
            "divide it by a constant first"
        )


def _split_sizes(table: Table, config: DatasetConfig) -> tuple[int, int]:
    """Number of training and of test rows; `auto` is the custom, or what is left of it."""
    rows = len(table.rows)
    asked_test = 1 if config.test == "auto" else config.test
    points = min(table.points, rows - asked_test) if config.points == "auto" else config.points
    test = min(table.test, rows - points) if config.test == "auto" else config.test
    if points < SMALLEST_POOL:
        raise InvalidInput(
            f"{table.name} has {rows} rows: with {asked_test} for testing (dataset.test) fewer "
            f"than {SMALLEST_POOL} are left to train on; ask for fewer test rows"
        )
    if test < 1 or points + test > rows:
        asked = "at least 1" if test < 1 else str(test)
        raise InvalidInput(
            f"{table.name} has {rows} rows, but dataset.points asks for {points} to train on and "
            f"dataset.test for {asked} to test on; ask for fewer"
        )
    return points, test


def _split(
    labels: Int64[np.ndarray, " rows"] | Float64[np.ndarray, " rows"],
    classes: tuple[str, ...],
    *,
    name: str,
    points: int,
    test: int,
    generator: np.random.Generator,
) -> tuple[Int64[np.ndarray, " points"], Int64[np.ndarray, " test_points"]]:
    """Row numbers of the pool and of the test rows, disjoint and in random order."""
    order = generator.permutation(len(labels))
    if not classes:
        return order[:points], order[points : points + test]
    if points < len(classes):
        raise InvalidInput(
            f"{points} training rows (dataset.points) cannot hold the {len(classes)} classes of "
            f"{name}; ask for at least {len(classes)}"
        )
    sizes = np.bincount(labels, minlength=len(classes))
    pool_sizes = _shares(points, sizes, at_least=1)
    test_sizes = _shares(test, sizes - pool_sizes, at_least=0)
    pool, held_out = [], []
    for index in range(len(classes)):
        rows = order[labels[order] == index]
        pool.append(rows[: pool_sizes[index]])
        held_out.append(rows[pool_sizes[index] :][: test_sizes[index]])
    return generator.permutation(np.concatenate(pool)), generator.permutation(
        np.concatenate(held_out)
    )


def _shares(
    total: int, sizes: Int64[np.ndarray, " classes"], *, at_least: int
) -> Int64[np.ndarray, " classes"]:
    """`total` places split over classes by size, largest remainders first, none over its size."""
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
