"""Matrices from outside: the numbers whatever their type, byte order and layout, or one line."""

import io

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from modelpred.errors import InvalidInput
from modelpred.studies import lds
from modelpred.studies.matrix_files import in_rows, read_matrix
from tests.odd_files import make_odd

kinds = st.sampled_from(
    ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "<i2", ">i4", "<i8", ">u2", "u1", "?"]
)
arrays = st_numpy.arrays(
    kinds, st_numpy.array_shapes(max_dims=3, max_side=4), elements={"allow_subnormal": True}
)


def npy(array: np.ndarray, *, fortran: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asfortranarray(array) if fortran else array, allow_pickle=True)
    return file.getvalue()


def read(folder, content: bytes, name: str = "a.npy"):
    (folder / name).write_bytes(content)
    return read_matrix(folder / name)


def test_numpy_writes_a_header_that_is_not_of_this_machine():
    """Else the draws below would not try what they say."""
    assert b">f8" in npy(np.zeros((2, 2), ">f8"))
    assert b"'fortran_order': True" in npy(np.zeros((2, 2)), fortran=True)


@given(arrays, st.booleans())
@settings(max_examples=100, deadline=None)
def test_every_type_order_and_layout_is_read_right(tmp_path_factory, array, fortran):
    found = read(tmp_path_factory.mktemp("npy"), npy(array, fortran=fortran))
    assert found.dtype == np.float64
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, array.astype(np.float64), strict=True)
    np.testing.assert_array_equal(in_rows(array[..., ::-1]), found[..., ::-1], strict=True)


@given(
    arrays,
    st.sampled_from(["cut", "flip", "append", "insert", "header"]),
    st.floats(0, 1, exclude_max=True),
    st.binary(min_size=1, max_size=40),
)
@settings(max_examples=150, deadline=None)
def test_any_damage_is_numbers_or_one_line(tmp_path_factory, array, damage, where, bytes_):
    content = npy(array)
    at = int(where * (min(100, len(content)) if damage == "header" else len(content)))
    changed = {
        "cut": content[:at],
        "flip": content[:at] + bytes([content[at] ^ bytes_[0]]) + content[at + 1 :],
        "append": content + bytes_,
        "insert": content[:at] + bytes_ + content[at:],
        "header": content[:at] + bytes_ + content[at + len(bytes_) :],
    }[damage]
    told, found = "", None
    try:
        found = read(tmp_path_factory.mktemp("npy"), changed)
    except InvalidInput as error:
        told = str(error)
    assert (found is None) == bool(told)
    assert "\n" not in told
    if damage in ("cut", "append", "insert"):
        assert "cannot be used" in told


HUGE = {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}


def claiming(header: dict) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + bytes(8)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it is no .npy file"),
        (npy(np.zeros((0, 3))), "its header says [0, 3] of float64, and 0 bytes follow"),
        (npy(np.array([{"a": 1}], dtype=object)), "it holds object, which is no number"),
        (npy(np.array(["a"])), "it holds <U1, which is no number"),
        (npy(np.array([1j])), "it holds complex128, which is no number"),
        (npy(np.array([(1, 2.0)], dtype="i4,f8")), "which is no number"),
        (npy(np.array(["2024-01-01"], "M8[D]")), "it holds datetime64[D], which is no number"),
        (npy(np.ones((3, 3)))[:-1], "its header says [3, 3] of float64, and 71 bytes follow"),
        (npy(np.ones(3)) * 2, "its header says [3] of float64, and 176 bytes follow"),
        (claiming(HUGE), "its header says [1000000000000] of float64, and 8 bytes follow"),
        (claiming(HUGE | {"shape": (-1, -1)}), "its header says [-1, -1] of float64"),
        (b"\x93NUMPY\x03\x00", "it is of another version of the format"),
        (b"PK\x03\x04" + bytes(40), "it is no .npy file"),
    ],
)
def test_what_is_no_array_of_numbers_is_one_line(tmp_path, content, told):
    with pytest.raises(InvalidInput) as caught:
        read(tmp_path, content)
    assert told in str(caught.value)
    assert str(caught.value).endswith(
        "; write it again as a matrix of numbers [test rows, training rows]"
    )
    assert "\n" not in str(caught.value)


@given(st.sampled_from(["a.csv", "a.parquet"]), st.binary(max_size=80))
@settings(max_examples=60, deadline=None)
def test_tables_of_any_bytes_are_numbers_or_one_line(tmp_path_factory, name, content):
    folder = tmp_path_factory.mktemp("tables")
    told = ""
    try:
        read(folder, content, name)
    except InvalidInput as error:
        told = str(error)
    assert "\n" not in told


def test_whole_numbers_that_turn_into_fractions_late_are_numbers(tmp_path):
    numbers = [*range(500), 0.5]
    content = "a\n" + "\n".join(map(str, numbers))
    assert read(tmp_path, content.encode(), "a.csv")[:, 0].tolist() == numbers


@pytest.mark.parametrize("name", ["a.npy", "a.csv", "a.parquet"])
@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "loop"])
def test_what_is_no_file_is_one_line(tmp_path, name, kind):
    path = tmp_path / name
    make_odd(path, kind)
    with pytest.raises(InvalidInput, match=name) as caught:
        read_matrix(path)
    assert "\n" not in str(caught.value)


def test_a_matrix_in_memory_may_have_any_byte_order_too():
    bank = lds.MarginBank(
        torch.tensor([[1, 0], [0, 1], [1, 1]], dtype=torch.uint8),
        torch.tensor([[0.1], [0.2], [0.3]], dtype=torch.float64),
        torch.ones(3, dtype=torch.bool),
    )
    matrix = np.array([[0.25, 0.5]])
    rows = [
        lds.score_attribution(bank, each)
        for each in (matrix, matrix.astype(">f8"), matrix[:, ::-1][:, ::-1], torch.tensor(matrix))
    ]
    assert all(row == rows[0] for row in rows)
    for odd in (np.array([["a", "b"]]), torch.ones(1, 2, dtype=torch.complex64)):
        with pytest.raises(InvalidInput, match="attribution 'attribution'"):
            lds.score_attribution(bank, odd)


def test_a_table_of_words_is_one_line(tmp_path):
    pl.DataFrame({"a": ["x"], "b": [[1]]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InvalidInput, match="holds no matrix of numbers"):
        read_matrix(tmp_path / "a.parquet")
