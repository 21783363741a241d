"""Runs a grid of tables and models as DVC experiments and writes one table and figures of the results.

    python -m flows.grid                                          all cells, with the settings of params.yaml
    python -m flows.grid --source spam --source iris --model svm  a part of the grid
    python -m flows.grid --set subsets.fit.uniform=1000           fewer subsets in every cell
    python -m flows.grid --set mnist:subsets.fit.uniform=1000     fewer subsets for one table

Each cell is queued as `dvc exp run --queue` with its table and model. Its name is derived from its
settings. DVC runs it in a folder of its own; the shard store is shared. The same command resumes: a
finished cell is read, a failed one is repeated. Results are read from DVC's cache; nothing is checked
out.
"""

# First: without Prefect, DVC and MLflow it ends the process in one line.
import flows.orchestration  # noqa: F401 # pyright: ignore[reportUnusedImport]

# isort: split

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.artifacts import PARAMS, PREDICTOR, STUDIES_FOLDER, shard_store
from flows.runtime import DVC_STATE, one_line_errors
from modelpred.report.grid import GridCell, write_grid
from modelpred.sealed import (
    SEAL,
    parse_json,
    parse_seal,
    parse_table,
    read_file,
    refuse,
    require_sealed,
)
from modelpred.studies.results import read_result
from modelpred.yaml_files import LARGEST_YAML, parse_yaml

SOURCES = ("iris", "spam", "higgs", "mnist")
MODELS = ("logistic", "svm")
MANY_CLASSES = ("mnist", "digits", "wine")
STAGES = ("studies@edits", "studies@lds")
FIDELITY = PREDICTOR / "fidelity.parquet"
FINISHED, FAILED = "Success", "Failed"
WAITING = ("Queued", "Running")
POLL_SECONDS = 2.0  # between two reads of git's refs, which show finished cells
STATUS_SECONDS = 20.0  # between two reads of DVC's queue, which shows failures but takes a second


@dataclass(frozen=True)
class Experiment:
    """A cell of the grid as a DVC experiment.

    Attributes:
        source: name of the table.
        model: family of the target models.
        settings: every parameter that is set, as `key=value`.
        name: the experiment's: the cell, and a digest of everything that its numbers depend on.
    """

    source: str
    model: str
    settings: tuple[str, ...]
    name: str

    @property
    def cell(self) -> str:
        """The cell's name in messages."""
        return f"{self.source}, {self.model}"


def experiments(
    sources: Sequence[str], models: Sequence[str], settings: Sequence[str], *, state: str
) -> list[Experiment]:
    """One experiment for each table and model; with many classes, logistic becomes softmax.

    Args:
        sources: tables.
        models: families.
        settings: `key=value` for every cell, `table:key=value` for those of one table.
        state: text that changes with the params and the code.
    """
    cells: list[Experiment] = []
    for source in sources:
        for model in models:
            family = "softmax" if model == "logistic" and source in MANY_CLASSES else model
            own = (setting for setting in map(partial(_own, source), settings) if setting)
            chosen = (f"dataset.source={source}", f"targets.model={family}", *own)
            digest = hashlib.sha256("\n".join([state, *chosen]).encode()).hexdigest()[:8]
            cells.append(Experiment(source, family, chosen, f"grid-{source}-{family}-{digest}"))
    return cells


def _own(source: str, setting: str) -> str | None:
    """The setting without its table's name; None if it is for another table."""
    table, colon, rest = setting.partition(":")
    if not colon or "=" in table:  # a value may hold colons
        return setting
    return rest if table == source else None


def main(
    *,
    source: Annotated[list[str], typer.Option(help="A table; can be repeated.")] = list(SOURCES),  # noqa: B006
    model: Annotated[list[str], typer.Option(help="A model; can be repeated.")] = list(MODELS),  # noqa: B006
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A parameter, key=value; for one table, table:key=value."),
    ] = None,
    higgs: Annotated[str, typer.Option(help="The table higgs, as in dataset.file.")] = "",
    jobs: Annotated[int, typer.Option(help="Cells to run at once; use 1 to measure times.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder of the table and figures.")] = Path(
        "artifacts/grid"
    ),
) -> None:
    """Run the cells of the grid that are missing, and write the table and figures."""
    with one_line_errors("grid"):
        run_grid(
            [
                cell
                for name in source
                for cell in experiments(
                    [name], model, [*(settings or ()), *_file(name, higgs)], state=_state()
                )
            ],
            jobs=jobs,
            out=out,
        )


def run_grid(cells: Sequence[Experiment], *, jobs: int, out: Path) -> None:
    """Run the cells that are missing, and write the table and figures of all."""
    finished = _finished()
    missing = [cell for cell in cells if cell.name not in finished]
    if missing:
        _queue(missing)
        _run(missing, jobs=jobs)
        finished = _finished()
    read = [_read(cell, finished[cell.name]) for cell in cells if cell.name in finished]
    if read:
        for path in write_grid(read, out):
            typer.echo(path)
    lost = [cell for cell in cells if cell.name not in finished]
    for cell in lost:
        typer.echo(f"grid: {cell.cell} failed: {_reason(cell)}", err=True)
    if lost:
        sys.exit(f"grid: {len(lost)} of {len(cells)} cells failed; run it again to try them again")


def _file(source: str, higgs: str) -> list[str]:
    """The setting for the file of higgs, with an absolute path; empty for other tables."""
    if source != "higgs" or not higgs:
        return []
    named = higgs if higgs.startswith("openml:") else Path(higgs).absolute()
    return [f"dataset.file={named}"]


def _state() -> str:
    """The params and the differences from the last commit, which identify the experiments."""
    params = read_file(PARAMS, again="restore it with git", largest=LARGEST_YAML).decode()
    return params + _output("git", "diff", "HEAD", "--", ".", ":!dvc.lock")


def _queue(cells: Sequence[Experiment]) -> None:
    """Queue the cells that are neither queued nor running; remove failed attempts from the queue."""
    status = _status()
    if old := [cell.name for cell in cells if status.get(cell.name) in (FINISHED, FAILED)]:
        _output("dvc", "queue", "remove", *old)
    for cell in cells:
        if status.get(cell.name) in WAITING:
            continue
        chosen = [part for setting in cell.settings for part in ("-S", setting)]
        _output("dvc", "exp", "run", "--queue", "--name", cell.name, *chosen, *STAGES)
        typer.echo(f"queued {cell.name}", err=True)


def _run(cells: Sequence[Experiment], *, jobs: int) -> None:
    """Run the queue with DVC's workers, and print each cell when it ends.

    The workers are detached and continue when this process is stopped. DVC stores the output of each
    cell (`dvc queue logs NAME`).
    """
    # A worker changes to the folder of its cell, where DVC would not find the state at a relative path.
    shared = os.environ | {
        "MODELPRED_STORE": shard_store(),
        "DVC_SITE_CACHE_DIR": str(DVC_STATE.absolute()),
    }
    _output("dvc", "queue", "start", "--jobs", str(jobs), env=shared)
    left = {cell.name for cell in cells}
    status_time = time.monotonic()
    while left:
        time.sleep(POLL_SECONDS)
        ended = dict.fromkeys(left & _finished().keys(), "finished")
        if time.monotonic() - status_time > STATUS_SECONDS:
            status, status_time = _status(), time.monotonic()
            # A cell that is missing from the queue was removed by hand.
            ended |= {name: "failed" for name in left if status.get(name, FAILED) == FAILED}
        for name, outcome in sorted(ended.items()):
            typer.echo(f"{outcome} {name}", err=True)
        left -= ended.keys()


def _status() -> dict[str, str]:
    """State of each task in DVC's queue by name: Queued, Running, Success or Failed."""
    states: dict[str, str] = {}
    for line in _output("dvc", "queue", "status").splitlines():
        words = line.split()
        if len(words) > 2 and words[-1] in (*WAITING, FINISHED, FAILED):
            states[words[1]] = words[-1]
    return states


def _finished() -> dict[str, str]:
    """Git commit of each finished experiment of the last commit, by name."""
    head = _output("git", "rev-parse", "HEAD").strip()
    listed = _output(
        "git", "for-each-ref", "--format=%(refname) %(objectname)",
        f"refs/exps/{head[:2]}/{head[2:]}",
    )  # fmt: skip
    pairs = (line.split() for line in listed.splitlines())
    return {ref.rpartition("/")[2]: commit for ref, commit in pairs}


def _read(cell: Experiment, commit: str) -> GridCell:
    """The results of a finished cell, from DVC's cache or remote."""
    from dvc import api  # noqa: PLC0415 - half a second

    files: Any = api.DVCFileSystem(rev=commit)
    again = f"remove the experiment ({cell.name}) and run the grid again"

    def read(path: Path) -> bytes:
        try:
            with files.open(path.as_posix(), "rb") as file:
                return file.read()
        except FileNotFoundError as error:
            raise refuse(path, "neither DVC's cache nor its remote has it", again=again) from error

    def sealed(path: Path) -> bytes:
        seal = path.parent / SEAL
        return require_sealed(
            read(path), path, parse_seal(read(seal), seal, again=again), again=again
        )

    study = partial(read_result, read=read, again=again)
    described = Path("artifacts/dataset/dataset.json")
    edits = study(STUDIES_FOLDER / "edits")
    return GridCell(
        source=cell.source,
        model=cell.model,
        params=parse_yaml(read(PARAMS), PARAMS.name),
        dataset=parse_json(sealed(described), described, again=again),
        fidelity=parse_table(sealed(FIDELITY), FIDELITY, again=again),
        edits=edits.metrics,
        break_even=edits.tables["break_even"],
        lds=study(STUDIES_FOLDER / "lds").tables["lds"],
    )


def _reason(cell: Experiment) -> str:
    """The last line of a failed cell's output that is not DVC's."""
    with suppress(SystemExit):  # the cell was removed from the queue
        lines = [line.strip() for line in _output("dvc", "queue", "logs", cell.name).splitlines()]
        own = [line for line in lines if line and not line.startswith(("ERROR", "WARNING", ">"))]
        if own:
            return own[-1]
    return f"see: dvc queue logs {cell.name}"


def _output(*command: str, env: Mapping[str, str] | None = None) -> str:
    """The output of a command; exits with its error if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        sys.exit(f"grid: {' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


if __name__ == "__main__":
    typer.run(main)
