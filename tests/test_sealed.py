"""Sealed folders: any change is refused in one line, whatever it is; what was written is read."""

import ast
import json
import os
import shutil
import subprocess
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from modelpred.errors import InvalidInput
from modelpred.sealed import (
    SEAL,
    check_sealed,
    parse_json,
    parse_model,
    parse_table,
    read_file,
    read_sealed,
    seal,
    write_atomically,
)

AGAIN = "run the stage again"
NAMES = ("metrics.json", "table.parquet", "numbers.bin")


def damages() -> st.SearchStrategy[tuple[str, float, float]]:
    """A kind of damage, and where it strikes in the file and in the folder, from 0 to 1."""
    kinds = (
        "flip",
        "cut",
        "swap",
        "empty",
        "remove",
        "folder",
        "pipe",
        "append",
        "other",
        "dangle",
    )
    place = st.floats(0, 1, exclude_max=True)
    return st.tuples(st.sampled_from(kinds), place, place)


def damage(folder: Path, kind: str, where: float, which: float) -> None:
    """Change one file of the folder, or swap two."""
    names = sorted(path.name for path in folder.iterdir())
    path = folder / names[int(which * len(names))]
    content = path.read_bytes()
    at = int(where * len(content))
    if kind == "swap":
        other = folder / names[(names.index(path.name) + 1) % len(names)]
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)
        return
    path.unlink()
    changed = {
        "flip": content[:at] + bytes([content[at] ^ 1 << int(8 * which)]) + content[at + 1 :],
        "cut": content[:at],
        "empty": b"",
        "append": content + b"\0",
        "other": b"null",
    }
    if kind in changed:
        path.write_bytes(changed[kind])
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "dangle":
        path.symlink_to("nowhere")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sealed") / "whole"
    folder.mkdir()
    (folder / "metrics.json").write_text('{"error": 0.25}')
    pl.DataFrame({"subset": [1, 2, 3]}).write_parquet(folder / "table.parquet")
    (folder / "numbers.bin").write_bytes(bytes(range(256)))
    seal(folder)
    return folder


def test_what_was_sealed_is_read(written: Path) -> None:
    for name in NAMES:
        assert read_sealed(written / name, again=AGAIN) == (written / name).read_bytes()
    check_sealed(written, again=AGAIN)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs coreutils")
def test_the_seal_is_what_sha256sum_checks(written: Path) -> None:
    subprocess.run(["sha256sum", "--quiet", "--strict", "-c", SEAL], cwd=written, check=True)


@given(damages())
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_refused_in_one_line(
    written: Path, tmp_path_factory: pytest.TempPathFactory, drawn: tuple[str, float, float]
) -> None:
    folder = tmp_path_factory.mktemp("damaged") / "folder"
    shutil.copytree(written, folder)
    damage(folder, *drawn)
    with pytest.raises(InvalidInput) as caught:
        check_sealed(folder, again=AGAIN)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(AGAIN)
    for name in NAMES:  # each file alone: refused, or read as it was
        try:
            assert read_sealed(folder / name, again=AGAIN) == (written / name).read_bytes()
        except InvalidInput as error:
            assert "\n" not in str(error)  # noqa: PT017


class _Described(BaseModel):
    model_config = ConfigDict(extra="forbid")

    error: float


@given(
    st.binary(max_size=64) | st.sampled_from([b"[" * 100_000, b"9" * 5_000, b"null", b"[]", b'"a"'])
)
def test_what_does_not_parse_is_refused_in_one_line(content: bytes) -> None:
    path = Path("file")
    for parsed in (
        lambda: parse_json(content, path, again=AGAIN),
        lambda: parse_model(_Described, content, path, again=AGAIN),
        lambda: parse_table(content, path, again=AGAIN),
    ):
        try:
            parsed()
        except InvalidInput as error:
            assert "\n" not in str(error)  # noqa: PT017


@given(st.text(st.characters(exclude_categories=())))  # halves of pairs are drawn, too
@example("\ud800")
@example("\U0001f600")
def test_text_in_json_can_be_printed_or_is_refused(text: str) -> None:
    content = json.dumps({"name": text}).encode()
    read = json.loads(content)  # two halves that stand together become one character
    try:
        read["name"].encode()
    except UnicodeEncodeError:
        with pytest.raises(InvalidInput, match="surrogates not allowed"):
            parse_json(content, Path("file"), again=AGAIN)
    else:
        assert parse_json(content, Path("file"), again=AGAIN) == read


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o022, 0o002])
def test_the_umask_decides_who_reads_a_file(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "file", b"1")
        seal(tmp_path)
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {0o644 & ~mask}


def test_a_file_above_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"12345")
    assert read_file(tmp_path / "large", again=AGAIN, largest=5) == b"12345"
    with pytest.raises(InvalidInput, match="5 bytes, at most 4 are read"):
        read_file(tmp_path / "large", again=AGAIN, largest=4)


# Functions that read a file past the seal, and the modules that may call them, each with its reason.
READING = {
    "read_bytes",
    "read_text",
    "read_parquet",
    "scan_parquet",
    "load_file",
    "safe_open",
    "loads",
}
ALLOWED = {
    "modelpred/sealed.py": "the readers themselves",
    "modelpred/dataset": "tables of users, and those that are installed",
    "modelpred/report/page.py": "its installed template and styles",
    "modelpred/targets/shards.py": "hashes of shards are in the manifest",
    "modelpred/targets/own_code.py": "code of the user, of which it makes a digest",
    "modelpred/targets/torch_target.py": "its own settings, which are JSON",
    "modelpred/targets/remote.py": "folders that are named by their digest",
    "modelpred/targets/worker.py": "messages of the process that started it",
    "modelpred/targets/worker_pool.py": "messages of a process that it started",
    "modelpred/targets/compiled/kernels.py": "installed sources",
    "modelpred/serving.py": "the body of a request",
    "modelpred/registry/snapshot.py": "JSON that it has just made",
    "modelpred/memory.py": "/proc",
    "modelpred/api/files.py": "the digest of a file",
    "modelpred/studies/matrix_files.py": "matrices of users",
    "modelpred/check/project.py": "settings that it has just written as JSON",
    "modelpred/page/app.py": "its installed files",
    "flows/stale_runs.py": "DVC's own lock file",
    "flows/publish.py": "digests, and DVC's answer",
    "flows/grid.py": "the digest of params.yaml",
    "flows/run_lock.py": "the lock file",
    "flows/server.py": "its own log and secret",
}


def test_every_other_module_reads_artifacts_through_the_sealed_readers() -> None:
    root = Path(__file__).parents[1]
    found = {
        place.relative_to(root).as_posix()
        for package in ("modelpred", "flows")
        for place in (root / package).rglob("*.py")
        for node in ast.walk(ast.parse(place.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in READING
    }
    assert [name for name in sorted(found) if not name.startswith(tuple(ALLOWED))] == []
