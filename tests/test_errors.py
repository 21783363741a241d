"""Errors of the disk name the file, whoever reports them."""

import errno
from pathlib import Path

import polars as pl
import pytest

from modelpred.errors import REFUSAL_WORDS, refusal, writing
from modelpred.sealed import write_atomically

FULL = Path("/dev/full")
PLACE = Path("folder/table.csv")


def to_file(path):
    with path.open("wb") as file:
        file.write(b"x")


def by_polars(path):
    with path.open("wb") as file:
        pl.DataFrame({"a": [1]}).write_csv(file)


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("write", [to_file, by_polars])
def test_a_full_disk_is_one_line_with_the_path(write):
    with pytest.raises(OSError, match=str(FULL)) as caught, writing(FULL):
        write(FULL)
    assert refusal(caught.value) == (
        "cannot write at /dev/full: No space left on device; make room or give permission, then run again"
    )


@pytest.mark.parametrize("words", REFUSAL_WORDS)
def test_words_of_other_libraries_are_named_too(words):
    with pytest.raises(OSError, match=str(PLACE)) as caught, writing(PLACE):
        raise RuntimeError(f"failed: {words} (13)")
    assert f"cannot write at {PLACE}: {words}" in str(refusal(caught.value))


@pytest.mark.parametrize(
    "error", [ValueError("a number"), OSError(errno.ENOSPC, "No space left on device", "other")]
)
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as caught, writing(PLACE):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("obstacle", ["empty folder", "folder", "file above"])
def test_a_file_that_cannot_be_renamed_into_place_is_named_as_it_should_be_called(
    tmp_path, obstacle
):
    path = tmp_path / "stages.json"
    if obstacle == "file above":
        path.write_text("")
        path = path / "stages.json"
    else:
        path.mkdir()
        if obstacle == "folder":
            (path / "x").touch()
    with pytest.raises(OSError, match=r"\[Errno \d+\]") as error:
        write_atomically(path, b"content")
    said = refusal(error.value)
    assert said is not None
    assert "stages.json" in said
    assert ".part" not in said
