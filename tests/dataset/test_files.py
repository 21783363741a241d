"""A data set comes back from its files as it was, or not at all."""

import dataclasses
import shutil

import polars as pl
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal
from torch.testing import assert_close

from modelpred.dataset import DatasetConfig, prepare, read_dataset, write_dataset
from modelpred.dataset.preparation import content_fingerprint
from modelpred.errors import InvalidInput
from modelpred.sealed import seal, write_atomically

FILES = [
    "SHA256SUMS", "dataset.json", "encoding.json", "points.parquet", "rows.parquet",
    "test_rows.parquet",
]  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset") / "iris"
    write_dataset(prepare(DatasetConfig(source="iris")), folder)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(written, tmp_path / "iris")


@pytest.mark.parametrize("source", ["spam", "iris", "digits", "diabetes"])
@pytest.mark.parametrize("scaling", ["standardise", "largest_row_norm"])
@pytest.mark.parametrize("flip", [0.0, 0.1])
def test_round_trip(source, scaling, flip, tmp_path):
    flip = 0.0 if source == "diabetes" else flip
    dataset = prepare(DatasetConfig(source=source, scaling=scaling, flip=flip))
    write_dataset(dataset, tmp_path)
    again = read_dataset(tmp_path)
    assert again.fingerprint == dataset.fingerprint
    for field in dataclasses.fields(dataset):
        before, after = getattr(dataset, field.name), getattr(again, field.name)
        if field.name in ("rows", "test_rows"):
            assert_frame_equal(before, after)
        elif hasattr(before, "dtype"):
            assert_close(before, after, rtol=0, atol=0)
        else:
            assert before == after


def test_same_data_set_same_bytes(written, tmp_path):
    write_dataset(prepare(DatasetConfig(source="iris")), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()


def test_files_are_readable_without_this_library(written):
    table = pq.read_table(written / "points.parquet")
    assert table.column_names == ["row_id", "split", "label", "features"]
    assert table["features"].type.list_size == 4
    assert table["split"].to_pylist() == ["pool"] * 67 + ["test"] * 33


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(InvalidInput, match=f"{name} is missing; run the dataset stage again"):
        read_dataset(folder)


@pytest.mark.parametrize("name", ["points.parquet", "rows.parquet"])
@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.999])
def test_a_flipped_byte_is_found(folder, name, place):
    content = bytearray((folder / name).read_bytes())
    content[int(place * len(content))] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=f"{name} cannot be used.*run the dataset stage again"):
        read_dataset(folder)


def test_a_changed_description_is_refused_unless_it_means_the_same(folder):
    expected = read_dataset(folder)
    path = folder / "dataset.json"
    content = path.read_bytes()
    refused = 0
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        seal(folder)
        try:
            again = read_dataset(folder)
        except InvalidInput:
            refused += 1
        else:  # such as the seventeenth digit of a float64
            assert again.fingerprint == content_fingerprint(again) == expected.fingerprint
    assert refused > 0.95 * len(content) / 7


def test_tables_of_another_data_set_are_refused(folder, tmp_path):
    write_dataset(prepare(DatasetConfig(source="iris", seed=1)), tmp_path / "other")
    shutil.copy(tmp_path / "other" / "rows.parquet", folder)
    with pytest.raises(InvalidInput, match=r"rows\.parquet cannot be used"):
        read_dataset(folder)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "text is not bytes")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["result"]


def test_a_table_that_the_description_does_not_fit_is_refused(folder):
    points = pl.read_parquet(folder / "points.parquet")
    shuffled = points.reverse()
    shuffled.write_parquet(folder / "points.parquet")
    seal(folder)
    with pytest.raises(InvalidInput, match=r"points\.parquet cannot be used"):
        read_dataset(folder)


def test_planted_labels_are_a_column_of_their_own(tmp_path):
    write_dataset(prepare(DatasetConfig(source="iris", flip=0.1)), tmp_path)
    points = pl.read_parquet(tmp_path / "points.parquet")
    wrong = points.filter(pl.col("label") != pl.col("original_label"))
    assert wrong.height == 7
    assert wrong["split"].unique().to_list() == ["pool"]
    description = tmp_path / "dataset.json"
    text = description.read_text()
    assert '"mislabelled": 7' in text
    description.write_text(text.replace('"mislabelled": 7', '"mislabelled": 6'))
    seal(tmp_path)
    with pytest.raises(InvalidInput, match="another number of wrong labels"):
        read_dataset(tmp_path)
    description.write_text(text.replace('  "mislabelled": 7,\n', ""))
    seal(tmp_path)
    with pytest.raises(InvalidInput, match=r"points\.parquet cannot be used"):
        read_dataset(tmp_path)
