"""Whatever happens to a file of a run, its readers end in one line that says what to do, or in what whole files give.

Files are found by what the readers open, so that a new one is tried without being listed here.
"""

import contextlib
import io
import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.artifacts.finished import finished_project, inside
from tests.artifacts.mutations import all_of
from tests.artifacts.readers import READERS
from tests.artifacts.trial import Kept, Reader, fault, opened_by

pytestmark = (
    pytest.mark.e2e
)  # a run takes half a minute, with git and DVC in processes of their own

# Folders of a run, which can be another kind of thing, too.
FOLDERS = ("artifacts", ".modelpred", "mlruns", "models")
# People edit them, git or DVC checks them, or they are the user's own.
OWNED = re.compile(r"params\.yaml|dvc\.lock|schedule\.yaml|matrix\.npy|\.dvc/.*")
# What DVC, MLflow or people read. MLflow keeps its database open: tests/registry/test_database.py.
FOR_OTHERS = re.compile(
    r"artifacts/.*\.csv|artifacts/studies/\w+\.json|artifacts/report/(index\.html|SHA256SUMS)"
    r"|mlruns/.*/(MLmodel|mlflow_model\.py|.*\.(yaml|txt)|(serving_)?input_example\.json)"
    r"|mlflow\.db|\.modelpred/(dvc/.*|registry\.lock)|\.(dvc|git)/.*|\.(dvc|git)ignore|dvc\.yaml|.*README\.md"
    r"|(flows|modelpred)/.*"
)
# Readers that go on without what they cannot use.
LENIENT = ("published",)
SHOWS = "pipeline"  # reads what DVC has just written or checked, to show it
SCHEMA = re.compile(r"(without|renamed|lists): ")
STUDIES = re.compile(r"artifacts/studies(/\w+)?")


@dataclass
class Run:
    """A finished run, one of another table, and what reads them."""

    folder: Path
    other: Path
    kept: Kept
    readers: dict[str, Reader]

    def paths(self, reader: Reader) -> list[Path]:
        """The files that a reader opens, and the folders that they are in."""
        above = {each for path in reader.files for each in path.parents if each.parts}
        return sorted(reader.files | {path for path in above if path.parts[0] in FOLDERS})

    def fault(self, reader: Reader, path: Path, name: str, *, share: float, bit: int) -> str | None:
        """What is wrong with how a reader ends after the mutation of this name."""
        found = all_of(self.folder / path, other=self.other_of(reader, path), share=share, bit=bit)
        [mutation] = [each for each in found if str(each) == name]
        study = STUDIES.match(path.as_posix()) is not None
        # The report says which studies it leaves out: test_the_report_says_what_it_leaves_out.
        said = study and reader.name == "report" and "another table" in name
        optional = reader.name in LENIENT or STUDIES.fullmatch(path.as_posix()) is not None
        with quiet():
            return fault(
                reader, self.folder / path, mutation, self.kept,
                owned=OWNED.fullmatch(path.as_posix()) is not None or reader.name == SHOWS or said,
                optional=optional,
            )  # fmt: skip

    def names(self, reader: Reader, path: Path, *, share: float, bit: int) -> list[str]:
        """The mutations of a path."""
        found = all_of(self.folder / path, other=self.other_of(reader, path), share=share, bit=bit)
        # Of a study's sealed tables, the report checks the schema; DVC knows the code that wrote them.
        of_study = STUDIES.match(path.as_posix()) and reader.name in ("report", "page")
        unchecked = [each for each in found if each.resealed and not SCHEMA.match(each.name)]
        return [str(each) for each in found if not (of_study and each in unchecked)]

    def other_of(self, reader: Reader, path: Path) -> Path:
        """What the other run has in the path's place, if it is wrong there: a whole run is right."""
        begins = path.as_posix() in ("artifacts", "models", "models/saved") or (
            reader.name == "subsets" and path.as_posix() == "artifacts/dataset"
        )
        return self.other / ("none" if begins else path)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No logs, and nothing printed."""
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Iterator[Run]:
    place = tmp_path_factory.mktemp("runs")
    with quiet():
        folder = finished_project(place / "run")
        other = finished_project(place / "other", seed=1, published=False)
    kept = Kept(folder, place / "kept")
    readers: dict[str, Reader] = {}
    with inside(folder):
        for name, read in READERS.items():
            with quiet():
                opened, expected = opened_by(read)
            kept.put_back()
            files = frozenset(path for path in opened if tried(folder, path))
            readers[name] = Reader(name, read, files, expected)
        yield Run(folder, other, kept, readers)


def tried(folder: Path, path: Path) -> bool:
    """Whether a file that was opened is one of the run, and no lock or code."""
    code = path.parts[:1] in (("flows",), ("modelpred",), (".git",))
    lock = path.name == "mlflow.db" or (path.suffix == ".lock" and path.name != "dvc.lock")
    return (folder / path).is_file() and not lock and not code


def test_every_file_of_a_run_has_a_reader(run):
    files = {path.relative_to(run.folder) for path in run.folder.rglob("*") if path.is_file()}
    read = {path for reader in run.readers.values() for path in reader.files}
    unread = [path.as_posix() for path in sorted(files - read)]
    assert [name for name in unread if not FOR_OTHERS.fullmatch(name)] == []


def test_the_report_says_what_it_leaves_out(run):
    place = run.folder / "artifacts" / "studies" / "edits"
    shutil.rmtree(place)
    shutil.copytree(run.other / "artifacts" / "studies" / "edits", place)
    try:
        with quiet():
            run.readers["report"].read()
        page = (run.folder / "artifacts" / "report" / "index.html").read_text()
    finally:
        run.kept.put_back()
    assert "This study was not run: its results are of another dataset" in page


def test_any_damage_is_one_line_or_does_no_harm(run):
    drawn = np.random.default_rng(0)
    faults: list[str] = []
    for _ in range(100):
        reader = run.readers[drawn.choice([name for name in READERS if run.readers[name].files])]
        paths = run.paths(reader)
        path = paths[drawn.integers(len(paths))]
        where = {"share": float(drawn.random()), "bit": int(drawn.integers(8))}
        name = str(drawn.choice(run.names(reader, path, **where)))
        why = run.fault(reader, path, name, **where)
        if why:
            faults.append(f"{reader.name}: {path} {name} {where}: {why[:300]}")
    assert faults == []


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(READERS))
def test_every_damage_at_three_places_is_one_line_or_does_no_harm(run, name):
    reader = run.readers[name]
    faults = [
        f"{path} {each}: {why}"
        for path in run.paths(reader)
        for where in (
            {"share": 0.02, "bit": 7},
            {"share": 0.5, "bit": 0},
            {"share": 0.93, "bit": 4},
        )
        for each in run.names(reader, path, **where)
        if (why := run.fault(reader, path, each, **where))
    ]
    assert faults == []
