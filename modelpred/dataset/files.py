"""Writes and reads a data set.

    points.parquet      row_id, split (pool or test), label, features (a fixed-size list per row), with
                        training rows first; original_label if wrong labels were planted
    rows.parquet        original cells of the training rows
    test_rows.parquet   original cells of the test rows
    encoding.json       encoding of each column, for later rows
    dataset.json        names, classes, scaling, attribution, number of planted labels, fingerprint of
                        the content

SHA256SUMS seals them. Reading executes nothing from the files and refuses files that do not match.
"""

import io
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from modelpred.dataset.config import ScalingName
from modelpred.dataset.encoding import Encoding
from modelpred.dataset.growing import Earlier
from modelpred.dataset.preparation import Dataset, content_fingerprint
from modelpred.dataset.scaling import Scaling
from modelpred.errors import InvalidInput
from modelpred.sealed import (
    parse_model,
    parse_table,
    read_sealed,
    refuse,
    remake,
    seal,
    write_atomically,
)

_TABLES = ("points.parquet", "rows.parquet", "test_rows.parquet")
_ENCODING, _DESCRIPTION = "encoding.json", "dataset.json"
AGAIN = remake("dataset")


class _Description(BaseModel):
    """dataset.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    class ScalingEntry(BaseModel):
        """The scaling with its constants."""

        model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

        name: ScalingName
        offset: tuple[FiniteFloat, ...]
        divisor: tuple[Annotated[FiniteFloat, Field(gt=0)], ...]

    class EarlierEntry(BaseModel):
        """Positions of the training rows of an earlier version."""

        model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

        points: int
        places: tuple[int, ...]
        labels: tuple[int, ...] | None = None

    schema_version: Literal[3]
    name: str
    points: int
    test: int
    label_name: str
    classes: tuple[str, ...]
    scaling: ScalingEntry
    attribution: str
    mislabelled: int | None = None
    earlier: tuple[EarlierEntry, ...] | None = None
    available: int | None = None
    unlabelled: int | None = None
    fingerprint: str


def write_dataset(dataset: Dataset, folder: Path) -> None:
    """Write the data set into the folder; the same data set gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "points.parquet": parquet_bytes(_points_table(dataset)),
        "rows.parquet": parquet_bytes(dataset.rows),
        "test_rows.parquet": parquet_bytes(dataset.test_rows),
        _ENCODING: (dataset.encoding.model_dump_json(indent=2) + "\n").encode(),
    }
    description = _Description(
        schema_version=3,
        name=dataset.name,
        points=len(dataset.row_ids),
        test=len(dataset.test_row_ids),
        label_name=dataset.label_name,
        classes=dataset.classes,
        scaling=_Description.ScalingEntry(
            name=dataset.scaling.name,
            offset=dataset.scaling.offset,
            divisor=dataset.scaling.divisor,
        ),
        attribution=dataset.attribution,
        mislabelled=None if dataset.mislabelled is None else int(dataset.mislabelled.sum()),
        earlier=tuple(
            _Description.EarlierEntry(
                points=each.points, places=each.places, labels=each.labels or None
            )
            for each in dataset.earlier
        )
        or None,
        available=dataset.available,
        unlabelled=dataset.unlabelled,
        fingerprint=dataset.fingerprint,
    )
    text = description.model_dump_json(indent=2, exclude_none=True) + "\n"
    for name, content in {**contents, _DESCRIPTION: text.encode()}.items():
        write_atomically(folder / name, content)
    seal(folder, (*contents, _DESCRIPTION))


def read_dataset(folder: Path) -> Dataset:
    """Read a data set.

    Raises:
        InvalidInput: a file is missing, damaged, or belongs to another data set.
    """
    contents = {
        name: read_sealed(folder / name, again=AGAIN)
        for name in (_DESCRIPTION, *_TABLES, _ENCODING)
    }
    description = parse_model(
        _Description, contents[_DESCRIPTION], folder / _DESCRIPTION, again=AGAIN
    )
    tables = {name: parse_table(contents[name], folder / name, again=AGAIN) for name in _TABLES}
    encoding = parse_model(Encoding, contents[_ENCODING], folder / _ENCODING, again=AGAIN)
    dataset = _assemble(description, tables, encoding, folder)
    if content_fingerprint(dataset) != description.fingerprint:
        raise _mismatch(folder / _DESCRIPTION, "its fingerprint is not that of the content")
    return replace(dataset, fingerprint=description.fingerprint)


def parquet_bytes(table: pl.DataFrame, *, metadata: dict[str, str] | None = None) -> bytes:
    """The table as one Parquet file; the same table gives the same bytes."""
    buffer = io.BytesIO()
    table.write_parquet(buffer, compression="zstd", metadata=metadata)
    return buffer.getvalue()


def _points_table(dataset: Dataset) -> pl.DataFrame:
    splits = ["pool"] * len(dataset.row_ids) + ["test"] * len(dataset.test_row_ids)
    table = pl.DataFrame(
        {
            "row_id": pl.Series([*dataset.row_ids, *dataset.test_row_ids], dtype=pl.String),
            "split": pl.Series(splits, dtype=pl.String),
            "label": torch.cat([dataset.labels, dataset.test_labels]).numpy(),
            "features": torch.cat([dataset.features, dataset.test_features]).numpy(),
        }
    )
    if dataset.original_labels is None:
        return table
    original = torch.cat([dataset.original_labels, dataset.test_labels]).numpy()
    return table.with_columns(pl.Series("original_label", original))


def _assemble(
    description: _Description, tables: dict[str, pl.DataFrame], encoding: Encoding, folder: Path
) -> Dataset:
    """The data set without its fingerprint, after checking shapes."""
    points, rows = tables["points.parquet"], tables["rows.parquet"]
    kinds: dict[str, pl.DataType] = {
        "row_id": pl.String(),
        "split": pl.String(),
        "label": pl.Int64() if description.classes else pl.Float64(),
        "features": pl.Array(pl.Float64, len(encoding.feature_names)),
    }
    if description.mislabelled is not None:
        kinds["original_label"] = pl.Int64()
    if dict(points.schema) != kinds:
        raise _mismatch(folder / "points.parquet", f"it does not hold {', '.join(kinds)}")
    splits = points["split"].to_list()
    pool = description.points
    if splits != ["pool"] * pool + ["test"] * description.test:
        raise _mismatch(
            folder / "points.parquet",
            f"it does not hold {pool} training and {description.test} test rows, in this order",
        )
    row_ids = tuple(points["row_id"])
    test_rows = tables["test_rows.parquet"]
    for name, table, ids in (
        ("rows.parquet", rows, row_ids[:pool]),
        ("test_rows.parquet", test_rows, row_ids[pool:]),
    ):
        if "row_id" not in table.columns or tuple(table["row_id"]) != ids:
            raise _mismatch(folder / name, "its rows are not those of points.parquet")
    features = torch.from_numpy(points["features"].to_numpy(writable=True))
    labels = torch.from_numpy(points["label"].to_numpy(writable=True))
    original = None
    if description.mislabelled is not None:
        original = torch.from_numpy(points["original_label"].to_numpy(writable=True))[:pool]
        if int((original != labels[:pool]).sum()) != description.mislabelled:
            raise _mismatch(folder / _DESCRIPTION, "it names another number of wrong labels")
    scaling = description.scaling
    return Dataset(
        name=description.name,
        features=features[:pool],
        labels=labels[:pool],
        test_features=features[pool:],
        test_labels=labels[pool:],
        row_ids=row_ids[:pool],
        test_row_ids=row_ids[pool:],
        encoding=encoding,
        classes=description.classes,
        rows=rows,
        test_rows=test_rows,
        fingerprint="",
        label_name=description.label_name,
        scaling=Scaling(scaling.name, scaling.offset, scaling.divisor),
        attribution=description.attribution,
        original_labels=original,
        earlier=tuple(
            Earlier(each.points, each.places, each.labels or ())
            for each in description.earlier or ()
        ),
        available=description.available,
        unlabelled=description.unlabelled,
    )


def _mismatch(path: Path, why: str) -> InvalidInput:
    return refuse(path, why, again=AGAIN)
