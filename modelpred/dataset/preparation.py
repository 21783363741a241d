"""Prepares a data set from a source table: splits, encodes and scales it.

Encodings and scalings are fitted to the training rows only.

`flip` plants wrong labels, to evaluate methods that find them: this share of the training rows gets
another random class. They are drawn with a separate generator, so the split does not change. The data
set also stores the original labels; methods get only the planted ones. Test rows are not changed.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields, replace

import polars as pl
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from modelpred.dataset.cells import column_of
from modelpred.dataset.config import DatasetConfig
from modelpred.dataset.encoding import Encoding, fit_encoding
from modelpred.dataset.growing import (
    Earlier,
    Known,
    earlier_versions,
    grown_split,
    require_continuable,
)
from modelpred.dataset.labels import labels_of
from modelpred.dataset.scaling import Scaling, fit_scaling, require_apart, scaled_features
from modelpred.dataset.seeds import seeded_generator
from modelpred.dataset.sources import source_table
from modelpred.dataset.splitting import split
from modelpred.dataset.tables import Table
from modelpred.dataset.usage import rows_unused, rows_used, unused_of
from modelpred.errors import InvalidInput


@dataclass(frozen=True)
class Dataset:
    """Training and test points with their original rows.

    Attributes:
        name: the source table's name.
        features: float64 [points, features], scaled.
        labels: [points], int64 class index, or float64 for regression.
        test_features: the same for the test rows.
        test_labels: the same for the test rows.
        row_ids: id of each point in the source table, or its row number, as text.
        test_row_ids: the same for the test rows.
        encoding: encoding of the table's columns.
        classes: original label names in the order of their index; empty for regression.
        rows: original cells of the points, with `row_id` first and the label (with planted ones) last.
        test_rows: original cells of the test rows, in the same form.
        fingerprint: SHA-256 of all attributes but `available` and `unlabelled`.
        label_name: name of the label column.
        scaling: scaling of the features.
        attribution: authors of the table.
        original_labels: [points], before wrong labels were planted; None if none were.
        earlier: positions of the training rows of earlier versions, oldest first.
        available: number of labelled rows of the source; None if all are training or test rows.
        unlabelled: number of rows of the source that have no label and are left out; None: none.
    """

    name: str
    features: Float64[Tensor, "points features"]
    labels: Int64[Tensor, " points"] | Float64[Tensor, " points"]
    test_features: Float64[Tensor, "test_points features"]
    test_labels: Int64[Tensor, " test_points"] | Float64[Tensor, " test_points"]
    row_ids: tuple[str, ...]
    test_row_ids: tuple[str, ...]
    encoding: Encoding
    classes: tuple[str, ...]
    rows: pl.DataFrame
    test_rows: pl.DataFrame
    fingerprint: str
    label_name: str
    scaling: Scaling
    attribution: str
    original_labels: Int64[Tensor, " points"] | None = None
    earlier: tuple[Earlier, ...] = ()
    available: int | None = None
    unlabelled: int | None = None

    @property
    def rows_unused(self) -> str:
        """How many of the source's rows are not used, in words; empty if none."""
        return self._in_words(rows_unused)

    @property
    def rows_used(self) -> str:
        """How many of the source's rows are used, and why others are not, in words."""
        return self._in_words(rows_used)

    def _in_words(self, words: Callable[..., str]) -> str:
        return words(
            len(self.row_ids),
            len(self.test_row_ids),
            available=self.available,
            unlabelled=self.unlabelled,
            classes=bool(self.classes),
        )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features: a column, or a part of one such as `work=office`."""
        return self.encoding.feature_names

    @property
    def column_names(self) -> tuple[str, ...]:
        """The columns of the table that became features."""
        return self.encoding.column_names

    @property
    def mislabelled(self) -> Bool[Tensor, " points"] | None:
        """Whether each point has a planted label; None if none has. Methods must not use it."""
        return None if self.original_labels is None else self.labels != self.original_labels


def prepare(config: DatasetConfig, *, since: Dataset | None = None) -> Dataset:
    """Prepare the data set of a config.

    Args:
        config: the table and its settings.
        since: the data set of the version `config.since`, which this one continues.

    Raises:
        InvalidInput: the table is unknown, has too few rows, or unusable cells or labels.
    """
    return prepare_table(source_table(config), config, since=since)


def prepare_table(table: Table, config: DatasetConfig, *, since: Dataset | None = None) -> Dataset:
    """Prepare the data set of a table; `config.source` is ignored.

    Raises:
        InvalidInput: there are too few rows, or unusable cells or labels, or the table cannot
            continue `since`.
    """
    if not table.feature_names:
        raise InvalidInput(f"{table.name} has no feature columns beside the label {table.label!r}")
    labels, classes = labels_of(table)
    known = None if since is None else _known(since, table, classes, config)
    if known is None:
        pool_rows, test_rows = split(table, labels, classes, config)
    else:
        pool_rows, test_rows = grown_split(table, known, seed=config.seed)
    rows, held_out = table.rows[pool_rows], table.rows[test_rows]
    encoding = since.encoding if since else _fitted_encoding(rows, table, config)
    cells, test_cells = _encoded(encoding, rows, table), _encoded(encoding, held_out, table)
    scaling = since.scaling if since else fit_scaling(config.scaling, cells)
    names = encoding.feature_names
    features = scaled_features(scaling, cells, columns=names, what=table.name)
    if since is None:
        require_apart(scaling, cells, columns=names, what=table.name)
    pool_labels = torch.from_numpy(labels[pool_rows])
    shown = ("row_id", *encoding.column_names, *table.extra, table.label)
    dataset = Dataset(
        name=table.name,
        features=features,
        labels=pool_labels,
        test_features=scaled_features(scaling, test_cells, columns=names, what=table.name),
        test_labels=torch.from_numpy(labels[test_rows]),
        row_ids=tuple(rows["row_id"]),
        test_row_ids=tuple(held_out["row_id"]),
        encoding=encoding,
        classes=classes,
        rows=rows[list(shown)],
        test_rows=held_out[list(shown)],
        fingerprint="",
        label_name=table.label,
        scaling=scaling,
        attribution=table.attribution,
        earlier=earlier_versions(
            known, row_ids=tuple(rows["row_id"]), features=features, labels=pool_labels
        )
        if known
        else (),
        available=unused_of(table, points=len(pool_rows), test=len(test_rows)),
        unlabelled=table.unlabelled,
    )
    if config.flip:
        dataset = _with_wrong_labels(dataset, share=config.flip, seed=config.seed)
    return replace(dataset, fingerprint=content_fingerprint(dataset))


def _known(since: Dataset, table: Table, classes: tuple[str, ...], config: DatasetConfig) -> Known:
    """What the new rows are added to."""
    require_continuable(
        table, config, classes=classes, columns=since.column_names, known_classes=since.classes
    )
    return Known(since.row_ids, since.test_row_ids, since.features, since.labels, since.earlier)


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
    original = column_of(dataset.rows, dataset.label_name)
    # The planted class in the column's own type: 1 of a column of 0 and 1, "virginica" of names.
    index = original.cast(pl.String).replace_strict(
        {name: at for at, name in enumerate(dataset.classes)}, return_dtype=pl.Int64
    )
    names = [original[index.to_list().index(at)] for at in range(classes)]
    words = pl.Series(
        dataset.label_name, [names[at] for at in labels.tolist()], dtype=original.dtype
    )
    rows = dataset.rows.with_columns(words)
    return replace(dataset, labels=labels, rows=rows, original_labels=dataset.labels)


def content_fingerprint(dataset: Dataset) -> str:
    """SHA-256 over every field but the fingerprint itself and the numbers of rows that are not here.

    Numbers enter bit for bit and names with them, so that two data sets share a fingerprint only
    when everything that a later stage can read is equal.
    """
    digest = hashlib.sha256()
    for field in fields(dataset):
        if field.name in ("fingerprint", "available", "unlabelled"):
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
        elif isinstance(part, Encoding):
            described = part.model_dump(mode="json", exclude_none=True)
        digest.update(json.dumps([field.name, described, len(content)], default=str).encode())
        digest.update(content)
    return digest.hexdigest()


def _fitted_encoding(rows: pl.DataFrame, table: Table, config: DatasetConfig) -> Encoding:
    try:
        return fit_encoding(rows, table.feature_names, levels=config.levels, dates=config.dates)
    except InvalidInput as error:
        raise InvalidInput(f"{table.name}: {error}") from error


def _encoded(
    encoding: Encoding, rows: pl.DataFrame, table: Table
) -> Float64[Tensor, "rows features"]:
    """Unscaled features of some rows of the table."""
    try:
        return torch.from_numpy(encoding.encode(rows))
    except InvalidInput as error:
        raise InvalidInput(f"{table.name}: {error}") from error
