"""Files that are sealed as they are, but contradict themselves or each other, are refused by name in one line."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelpred.dataset import DatasetConfig, prepare, read_dataset, write_dataset
from modelpred.errors import InvalidInput
from modelpred.sealed import seal
from modelpred.subsets import Subsets, draw, read_subsets, write_subsets
from modelpred.targets import target_model, train_targets
from modelpred.targets.parquet import ShardMetadata, parse_shard
from modelpred.targets.shards import ManifestEntry, read_bank, write_manifest, write_shard

POINTS = 12
READ = {
    "points.parquet": read_dataset,
    "rows.parquet": read_dataset,
    "test_rows.parquet": read_dataset,
    "subsets.parquet": read_subsets,
}


def written_shard(path: Path, dataset, *, features: int) -> tuple[str, str]:
    """Write a shard of models of so many features; returns its hash and its ids."""
    weights = draw("uniform", points=POINTS, count=5, generator=np.random.default_rng(features))
    model = target_model("logistic")
    trained = train_targets(
        model, dataset.features[:, :features], dataset.labels, weights.double(), classes=2
    )
    ids = tuple(f"{features}-{row}" for row in range(5))
    metadata = ShardMetadata(
        fingerprint=f"{features}" * 64,
        dataset=dataset.fingerprint,
        model="logistic",
        settings=model.settings,
        tolerance=1e-6,
    )
    block = Subsets(ids, ("fit",) * 5, ("uniform",) * 5, weights.to(torch.uint8))
    return write_shard(path, block=block, trained=trained, metadata=metadata)


@pytest.fixture(scope="module")
def dataset():
    return prepare(DatasetConfig(source="iris", points=POINTS, test=6))


@pytest.fixture(scope="module")
def files(dataset, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_dataset(dataset, folder)
    weights = draw("uniform", points=POINTS, count=9, generator=np.random.default_rng(0))
    ids = tuple(map(str, range(9)))
    write_subsets(Subsets(ids, ("fit",) * 9, ("uniform",) * 9, weights.to(torch.uint8)), folder)
    written_shard(folder / "shard.parquet", dataset, features=4)
    return folder


def with_empty_cell(table: pl.DataFrame, name: str, place: int) -> pl.DataFrame:
    there = pl.int_range(len(table)) == place % len(table)
    return table.with_columns(pl.when(~there).then(pl.col(name)).alias(name))


# Contradictions: of a column, of a row, of a type.
CHANGES = {
    "without a column": lambda table, name, _: table.drop(name),
    "another type": lambda table, name, _: table.with_columns(
        pl.Series(name, [f"{cell}" for cell in table[name]])
    ),
    "numbers": lambda table, name, _: table.with_columns(pl.Series(name, range(len(table)))),
    "an empty cell": with_empty_cell,
    "a row fewer": lambda table, _, __: table.head(-1),
    "a row twice": lambda table, _, __: pl.concat([table, table.tail(1)]),
    "a column in another order": lambda table, name, _: table.with_columns(table[name].reverse()),
    "no rows": lambda table, _, __: table.head(0),
    "a column more": lambda table, _, __: table.with_columns(more=1),
}


@settings(max_examples=80, deadline=None)
@example(file="subsets.parquet", kind="numbers", place=4)  # one weight for each subset
@given(
    file=st.sampled_from(list(READ)),
    kind=st.sampled_from(list(CHANGES)),
    place=st.integers(0, 40),
)
def test_a_changed_table_is_content_or_one_line(files, tmp_path_factory, file, kind, place):
    folder = tmp_path_factory.mktemp("changed") / "files"
    shutil.copytree(files, folder)
    table = pl.read_parquet(files / file)
    name = table.columns[place % table.width]
    CHANGES[kind](table, name, place).write_parquet(folder / file)
    seal(folder)
    told = "content"
    try:
        READ[file](folder)
    except InvalidInput as error:
        told = str(error)
    assert "\n" not in told
    assert 0 < len(told) < 1000
    if kind in ("without a column", "a row fewer", "a row twice", "no rows"):
        assert told != "content"


@pytest.mark.parametrize(
    ("file", "column", "told"),
    [
        ("subsets.parquet", "size", "its sizes are not the sums of its weights"),
        ("rows.parquet", "row_id", "its rows are not those of points.parquet"),
        ("test_rows.parquet", "row_id", "its rows are not those of points.parquet"),
    ],
)
def test_columns_that_do_not_fit_each_other(files, tmp_path, file, column, told):
    folder = tmp_path / "files"
    shutil.copytree(files, folder)
    table = pl.read_parquet(folder / file)
    order = table[column].shuffle(seed=3)
    assert order.to_list() != table[column].to_list()
    table.with_columns(order).write_parquet(folder / file)
    seal(folder)
    with pytest.raises(InvalidInput, match=rf"/{file} cannot be used: {told}; run"):
        READ[file](folder)


def rewritten(data: bytes, edit) -> bytes:
    """A shard's bytes with another table, under the same metadata."""
    table = pq.read_table(pa.BufferReader(data))
    target = pa.BufferOutputStream()
    pq.write_table(edit(table).replace_schema_metadata(table.schema.metadata), target)
    return target.getvalue().to_pybytes()


def with_column(table: pa.Table, name: str, cells: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, cells)


def without_last(cells: pa.ChunkedArray) -> list:
    return [*cells.to_pylist()[:-1], None]


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (
            lambda table: with_column(
                table,
                "weights",
                pa.array(table["weights"].to_pylist(), pa.list_(pa.float32(), POINTS)),
            ),
            "weights must be uint8 or int32, got float",
        ),
        (
            lambda table: with_column(
                table, "weights", pa.array(table["weights"].to_pylist(), pa.list_(pa.uint8()))
            ),
            "column weights must be a list of fixed size",
        ),
        (lambda table: table.drop_columns(["converged"]), "columns must be"),
        (lambda table: table.slice(0, 0), "claims 0 rows"),
        (
            lambda table: with_column(
                table, "objective", pa.array(without_last(table["objective"]), pa.float64())
            ),
            "",
        ),
    ],
)
def test_a_shard_with_another_table_is_refused(files, edit, told):
    data = (files / "shard.parquet").read_bytes()
    parse_shard(data, name="shard.parquet")
    with pytest.raises(InvalidInput, match=rf"^shard\.parquet: .*{told}") as caught:
        parse_shard(rewritten(data, edit), name="shard.parquet")
    assert "\n" not in str(caught.value)


def test_shards_of_models_of_different_width_are_refused(dataset, tmp_path):
    entries = []
    for features in (3, 4):
        path = tmp_path / f"{features}.parquet"
        sha256 = written_shard(path, dataset, features=features)
        entries.append(
            ManifestEntry(
                file=path.name,
                fingerprint=f"{features}" * 64,
                sha256=sha256,
                size=path.stat().st_size,
                rows=5,
                designs={"uniform": 5},
            )
        )
    write_manifest(tmp_path, entries)
    with pytest.raises(InvalidInput, match=r"manifest\.json: shards differ in width"):
        read_bank(tmp_path)
