"""Files that cannot be read end in one line that names the file, and the line where there is one."""

import errno
import gzip
import io
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelpred.dataset import DatasetConfig, prepare
from modelpred.dataset.csv_files import read_header
from modelpred.dataset.reading import open_table
from modelpred.errors import InvalidInput

GOOD = "name,age,rich\nann,31,no\nbob,42,yes\n"
PARQUET = pl.DataFrame({"age": list(range(100)), "rich": ["no", "yes"] * 50})


def collected(path, delimiter=","):
    table = open_table(str(path), delimiter=delimiter)
    return table.read(table.columns, None)


@pytest.mark.parametrize(
    ("name", "content", "delimiter"),
    [
        ("people.csv", GOOD.encode(), ","),
        ("people.csv", b"\xef\xbb\xbf" + GOOD.encode(), ","),  # a byte order mark
        ("people.csv", GOOD.replace("\n", "\r\n").encode(), ","),
        ("people.csv", GOOD.replace(",", ";").encode(), ";"),
        ("people.tsv", GOOD.replace(",", "\t").encode(), ","),
        ("people.csv", GOOD.replace("ann", '"ann"').encode(), ","),
        ("people.csv.gz", gzip.compress(GOOD.encode(), mtime=0), ","),
        ("people.csv", GOOD.removesuffix("\n").encode(), ","),
    ],
)
def test_a_csv_is_read_as_text(tmp_path, name, content, delimiter):
    (tmp_path / name).write_bytes(content)
    assert collected(tmp_path / name, delimiter).to_dict(as_series=False) == {
        "name": ["ann", "bob"],
        "age": ["31", "42"],
        "rich": ["no", "yes"],
    }


def test_quoted_cells_may_hold_delimiters_and_line_ends(tmp_path):
    path = tmp_path / "people.csv"
    path.write_text('name,age\n"ann, or\n""anna""",31\nbob,42\n')
    assert collected(path)["name"].to_list() == ['ann, or\n"anna"', "bob"]
    table = open_table(str(path), delimiter=",")
    assert table.where(0) == "row 0 (line 2)"
    assert table.where(1) == "row 1 (line 4)"


def test_a_folder_and_a_glob_are_one_table_in_order_of_names(tmp_path):
    for part in (1, 0):
        PARQUET[part * 50 : part * 50 + 50].write_parquet(tmp_path / f"part-{part}.parquet")
        (tmp_path / f"part-{part}.csv").write_text(f"age,rich\n{part},no\n")
    assert collected(tmp_path).equals(PARQUET)
    assert collected(tmp_path / "part-*.parquet").equals(PARQUET)
    assert collected(tmp_path / "*.csv")["age"].to_list() == ["0", "1"]


def truncated():
    path = Path("whole.parquet")
    PARQUET.write_parquet(path)
    content = path.read_bytes()
    path.unlink()
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"", "a.csv is empty; expected a header line and rows"),
        ("a.csv", b"age,rich\n", "a.csv has a header but no rows"),
        (
            "a.csv",
            GOOD.replace(",", ";").encode(),
            (
                "a.csv: one column when split at ',', 3 when split at ';'; save it with commas, or set "
                "dataset.delimiter to ';'"
            ),
        ),
        (
            "a.csv",
            GOOD.encode() + "zoë,5,no\n".encode("latin-1"),
            "a.csv: line 4 is not UTF-8 (byte 0xeb at 3); save the whole file as UTF-8",
        ),
        ("a.csv", GOOD.encode("utf-16"), "a.csv is UTF-16; save it as UTF-8"),
        ("a.csv", b"age\n1\n\0\n", "a.csv: line 3 holds a zero byte; not a CSV file"),
        (
            "a.csv",
            GOOD.encode() + b"carl,5\n",
            (
                "a.csv: line 4 has 2 cells, the header 3; mend the line, or quote cells that hold the "
                "delimiter"
            ),
        ),
        (
            "a.csv",
            GOOD.encode() + b"carl,5,no,no\n",
            (
                "a.csv: line 4 has 4 cells, the header 3; mend the line, or quote cells that hold the "
                "delimiter"
            ),
        ),
        (
            "a.csv",
            b"age,rich,age\n1,no,2\n",
            (
                "a.csv: line 1 names 'age' more than once (columns 1, 3); give each column a name of "
                "its own"
            ),
        ),
        ("a.csv", b"age,,rich\n0,31,2\n", "a.csv: column 2 of 3 has no name in line 1; name it"),
        (
            "a.csv",
            b'age,b\n3,4\n"1,2\n3,4\n',
            "a.csv: the record that begins in line 3 is not CSV (unexpected end of data); is a quote",
        ),
        (
            "a.csv.gz",
            gzip.compress(GOOD.encode(), mtime=0)[:-12],
            "a.csv.gz is not a whole gzip file (Compressed file ended before",
        ),
        ("a.csv.gz", GOOD.encode(), "./a.csv.gz cannot be read: Not a gzipped file"),
        ("a.parquet", b"", "a.parquet is empty; expected a Parquet file"),
        ("a.parquet", b"not Parquet", "a.parquet is not a whole Parquet file ("),
        ("a.parquet", truncated, "a.parquet is not a whole Parquet file ("),
        (
            "a.xlsx",
            b"PK",
            (
                "a.xlsx: expected a file whose name ends in one of .csv, .tsv, .txt, .csv.gz, .parquet, "
                ".pq"
            ),
        ),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, monkeypatch, name, content, told):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content() if callable(content) else content)
    with pytest.raises(InvalidInput) as error:
        prepare(DatasetConfig(source=f"./{name}", label="rich"))
    assert str(error.value).startswith(told)
    assert "\n" not in str(error.value)


def test_a_parquet_file_damaged_inside_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    PARQUET.write_parquet("a.parquet", compression="uncompressed")
    content = bytearray(Path("a.parquet").read_bytes())
    content[4:60] = bytes(56)
    Path("a.parquet").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"^a\.parquet cannot be read to its end: [^\n]*$"):
        prepare(DatasetConfig(source="a.parquet", label="rich"))


def test_what_is_not_there_or_not_a_table_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    for source, told in {
        "folder": "folder is a folder without Parquet files; name a file, a folder of Parquet "
        "files, or a glob such as folder/*.csv",
        "folder/a.csv": "folder/a.csv is not there; relative paths start at the current folder",
        "folder/*.csv": "folder/*.csv matches no file; relative paths start at the current folder",
    }.items():
        with pytest.raises(InvalidInput) as error:
            prepare(DatasetConfig(source=source, label="rich"))
        assert str(error.value) == told


def test_a_file_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    def refused(*_: object, **__: object):
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "a.csv"
    path.write_text(GOOD)
    monkeypatch.setattr("os.open", refused)
    with pytest.raises(InvalidInput, match=r"a\.csv cannot be read: Permission denied$"):
        open_table(str(path), delimiter=",")


class Failing(io.RawIOBase):
    """A disk that gives the content up to a place, and an error there."""

    def __init__(self, content, place):
        self.left, self.place = io.BytesIO(content[:place]), place

    def readable(self):
        """It can be read."""
        return True

    def readinto(self, buffer):
        """Give what is left, then fail."""
        found = self.left.read(len(buffer))
        if not found:
            raise OSError(errno.EIO, "Input/output error")
        buffer[: len(found)] = found
        return len(found)


@given(st.sampled_from(["a.csv", "a.csv.gz"]), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
@example("a.csv", 0.0)
@example("a.csv.gz", 0.5)
def test_a_disk_that_fails_in_the_middle_is_told(name, share):
    content = (GOOD + "eve,50,no\n" * 5000).encode()
    content = gzip.compress(content) if name.endswith(".gz") else content
    opened = io.BufferedReader(Failing(content, int(share * len(content))), 512)
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr("modelpred.dataset.csv_files.open_file", lambda *_, **__: opened)
        try:
            said = str(read_header(Path(name), ","))
        except InvalidInput as error:
            said = str(error)
    assert said in (
        str((",", ("name", "age", "rich"))),
        f"{name} cannot be read: Input/output error",
    )


def test_a_gzip_file_that_is_none_is_told_before_it_is_read(tmp_path):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(GOOD.encode())
    with pytest.raises(InvalidInput, match=r"a\.csv\.gz cannot be read: Not a gzipped file"):
        read_header(path, ",")


def test_parts_that_differ_are_named(tmp_path):
    PARQUET.write_parquet(tmp_path / "a.parquet")
    PARQUET.cast({"age": pl.Float64}).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(InvalidInput, match=r"b\.parquet: column 'age' is Float64, but in .*Int64"):
        open_table(str(tmp_path), delimiter=",")
    (tmp_path / "a.csv").write_text("age,rich\n1,no\n")
    (tmp_path / "b.csv").write_text("rich,age\nno,1\n")
    with pytest.raises(InvalidInput, match=r"b\.csv: its header differs from that of .*a\.csv"):
        open_table(str(tmp_path / "*.csv"), delimiter=",")
