"""A damaged or foreign mlflow.db gives one line of error; damage that SQLite cannot see is read as data."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from modelpred.cli import app
from modelpred.errors import InvalidInput
from modelpred.registry import list_versions, tracking_uri
from tests.odd_files import make_odd

REBUILD = "move it away and run python -m flows.publish, which rebuilds the registry"


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    """A database with one version."""
    from mlflow import MlflowClient  # noqa: PLC0415

    root = tmp_path_factory.mktemp("database")
    client = MlflowClient(tracking_uri(root))
    client.create_registered_model("m")
    client.create_model_version("m", "file:///nowhere", tags={"a": "b"})
    return root / "mlflow.db"


def damaged(content: bytearray, kind: str, places: list[float], bit: int) -> bytearray:
    """The content with that kind of damage at places given as shares of its length."""
    if kind == "cut":
        return content[: int(places[0] * len(content))]
    if kind == "append":
        return content + bytes(100)
    if kind == "empty":
        return bytearray()
    for at in (int(place * len(content)) for place in places):
        if kind == "flip":
            content[at] ^= 1 << bit
        else:
            content[at : at + 4096] = bytes(len(content[at : at + 4096]))
    return content


@given(
    st.sampled_from(["flip", "blank", "cut", "append", "empty"]),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=3),
    st.integers(0, 7),
)
@example("flip", [0.6685401104270567], 7)  # SQLite's message quotes bytes that are no UTF-8
@settings(max_examples=25, deadline=None)
def test_any_damage_is_the_versions_or_one_line(tmp_path_factory, database, kind, places, bit):
    root = tmp_path_factory.mktemp("damaged")
    content = damaged(bytearray(database.read_bytes()), kind, places, bit)
    (root / "mlflow.db").write_bytes(content)
    told = ""
    try:
        found = list_versions(root)
        assert len(found) <= 1
    except InvalidInput as error:
        told = str(error)
    assert "\n" not in told
    if kind in ("cut", "empty"):
        assert told.endswith(REBUILD)


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "text", "newer", "tables"])
def test_what_is_no_database_of_this_mlflow_is_one_line(tmp_path, database, kind):
    path = tmp_path / "mlflow.db"
    make_odd(path, kind)
    if kind == "text":
        path.write_text("no database at all")
    elif kind in ("newer", "tables"):
        shutil.copy(database, path)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(
                "UPDATE alembic_version SET version_num = 'ffffffffffff'"
                if kind == "newer"
                else "DROP TABLE alembic_version"
            )
            connection.commit()
    before = path.read_bytes() if path.is_file() else None
    said = CliRunner().invoke(app, ["registry", "list", "--project", str(tmp_path)])
    assert said.exit_code == 1
    assert len(said.output.splitlines()) == 1
    assert str(path) in said.output.replace("'", "")
    assert REBUILD in said.output
    if kind == "newer":
        assert "does not know its schema ffffffffffff" in said.output
    if before is not None:
        assert path.read_bytes() == before  # nothing is taken away


def test_an_older_schema_is_said_to_be_upgraded(tmp_path, database):
    path = tmp_path / "mlflow.db"
    shutil.copy(database, path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0584bdc529eb'")
        connection.commit()
    with pytest.raises(InvalidInput, match="older MLflow; run: mlflow db upgrade sqlite:///"):
        list_versions(tmp_path)
