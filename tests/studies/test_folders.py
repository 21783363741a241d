"""Folders are called what they are called: nothing in their names is a pattern."""

import hashlib
import tempfile
from pathlib import Path

import polars as pl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelpred.studies.results import StudyResult, read_result, write_result
from modelpred.targets.remote import UrlStore

signs = st.sampled_from("ab1 []*?{}!^-$~=%,;'é")
folders = st.text(signs, min_size=1, max_size=10).filter(lambda name: name == name.strip(" "))


@given(folders, folders)
@example("work [v2]", "work v")
@example("t[1]", "t1")
@settings(max_examples=60, deadline=None)
def test_a_result_is_read_from_its_own_folder(name, other):
    with tempfile.TemporaryDirectory() as place:
        for folder, cell in ((other, "other"), (name, "own")):
            table = pl.DataFrame({"cell": [cell]})
            write_result(StudyResult({"cell": cell}, {"t": table}), Path(place) / folder)
        found = read_result(Path(place) / name)
        assert found.tables["t"]["cell"].to_list() == [found.metrics["cell"]] == ["own"]


@given(folders)
@example("shards [v2]")
@settings(max_examples=60, deadline=None)
def test_a_shard_is_found_in_a_store_of_any_name(name):
    fingerprint, content = "ab" * 32, b"shard"
    with tempfile.TemporaryDirectory() as place:
        shard = f"{fingerprint}-{hashlib.sha256(content).hexdigest()}.parquet"
        path = Path(place) / name / "ab" / shard
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        store = UrlStore(f"file://{place}/{name}")
        assert store.names(f"ab/{fingerprint}-") == [f"ab/{shard}"]
        assert store.read(f"ab/{shard}") == content
        store.write("cd/new.parquet", content)
        assert (Path(place) / name / "cd" / "new.parquet").read_bytes() == content
