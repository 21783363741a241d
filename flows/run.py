"""Runs the stages of the project in the current folder in order, without DVC, git, Prefect or MLflow.

    python -m flows.run

A stage runs if its code, its part of params.yaml or the content of its inputs has changed since it
last finished, or if its output is missing or damaged; this is what `dvc repro` does, too. All stages
run in this process. The studies behind the first screen of the report run before the others, and the
first run of a folder writes the report between them and prints where it is. A run that was killed
goes on where it was: finished stages are skipped, and `targets` finds its finished blocks in the
shard store.

    .modelpred/stages.json   for each finished stage, the digest of what it was made from
"""

import hashlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.artifacts import (
    DATASET,
    PARAMS,
    PREDICTOR,
    REPORT,
    STUDIES_FOLDER,
    SUBSETS,
    TARGETS,
)
from flows.run_lock import AlreadyRunning, run_lock
from flows.runtime import end_with_owner, one_line_errors, show_warnings
from modelpred.check.plan_file import expected_seconds
from modelpred.dataset.sources import files_read
from modelpred.errors import InvalidInput
from modelpred.progress import progress_bar
from modelpred.run_summary import read_summary
from modelpred.sealed import SEAL, check_sealed, parse_json, read_file, sha256, write_atomically
from modelpred.studies import ANSWERS, STUDIES

if TYPE_CHECKING:
    from modelpred.params import Params

# Modules that import torch, which takes seconds, are imported in functions: then a bar is shown.
RECORD = Path(".modelpred/stages.json")
ROOT = Path(__file__).parents[1]
CODE = ("flows", "modelpred")
CODE_ENDINGS = (".py", ".c", ".h", ".html", ".css", ".so", ".parquet")


@dataclass(frozen=True)
class Stage:
    """A stage of the pipeline, as dvc.yaml describes it.

    Attributes:
        name: its name in dvc.yaml.
        params: the parts of params.yaml that it uses.
        inputs: the folders that it reads.
        output: the folder that it writes.
    """

    name: str
    params: tuple[str, ...]
    inputs: tuple[Path, ...]
    output: Path

    def run(self) -> None:
        """Run the stage in the current folder."""
        stage, _, study = self.name.partition("@")
        module = import_module(f"flows.{stage}")
        module.run(study) if study else module.main()


def stages() -> tuple[Stage, ...]:
    """The stages in the order in which they run."""
    drawn = ("fit", "validation", "test", "grown", "scale", "seed")
    studies = tuple(
        Stage(
            f"studies@{study}",
            (study, "targets"),
            (DATASET, PREDICTOR),
            STUDIES_FOLDER / study,
        )
        for study in STUDIES
    )
    return (
        Stage("dataset", ("dataset",), (), DATASET),
        Stage("subsets", tuple(f"subsets.{key}" for key in drawn), (DATASET,), SUBSETS),
        Stage("targets", ("targets", "subsets.block"), (DATASET, SUBSETS), TARGETS),
        Stage("predictor", ("predictor", "targets"), (DATASET, TARGETS), PREDICTOR),
        *studies,
        Stage(
            "report",
            ("dataset", "subsets", "targets", "predictor", "report"),
            (DATASET, TARGETS, PREDICTOR, *(study.output for study in studies)),
            REPORT,
        ),
    )


def answers_first() -> tuple[Stage, ...]:
    """The stages in the order in which they run here: studies behind the first screen before others."""
    after = {f"studies@{study}" for study in STUDIES if study not in ANSWERS}
    return tuple(
        sorted(stages(), key=lambda stage: (stage.name in after) + 2 * (stage.name == "report"))
    )


def changed(stage: Stage, params: "Params", record: dict[str, Any], code: str) -> str | None:
    """The digest of what the stage is to be made from; None if it was made from that."""
    content = {
        "code": code,
        "params": {name: part_of(params, name) for name in stage.params},
        "inputs": {str(folder): _seal(folder) for folder in stage.inputs},
        "files": {str(path): _digest(path) for path in files_of_stage(stage, params)},
    }
    digest = sha256(json.dumps(content, sort_keys=True).encode())
    done = record.get(stage.name)
    if not isinstance(done, dict) or done.get("from") != digest:
        return digest
    try:
        check_sealed(stage.output, again="")
    except InvalidInput:
        return digest
    return None if done.get("output") == _seal(stage.output) else digest


def files_of_stage(stage: Stage, params: "Params") -> tuple[Path, ...]:
    """The user's files that a stage reads: tables, and the code of a target."""
    if stage.name == "dataset":
        return files_read(params.dataset)
    from modelpred.targets.own_code import is_import_path  # noqa: PLC0415

    if stage.name == "subsets" or not is_import_path(params.targets.model):
        return ()
    code = Path(params.targets.code)
    return tuple(sorted(code.rglob("*.py"))) if code.is_dir() else (code,)


def part_of(params: "Params", name: str) -> Any:  # noqa: ANN401 - a section or a value of one
    """The part of the params that a name such as `subsets.seed` stands for."""
    section, _, key = name.partition(".")
    content = getattr(params, section).model_dump(mode="json")
    return content[key] if key else content


def _seal(folder: Path) -> str | None:
    """The digest of a folder's list of hashes; None if there is none."""
    path = folder / SEAL
    return sha256(read_file(path, again="")) if path.is_file() else None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_digest() -> str:
    """The digest of the installed code of the stages."""
    digest = hashlib.sha256()
    for package in CODE:
        for path in sorted((ROOT / package).rglob("*")):
            if path.suffix in CODE_ENDINGS:
                digest.update(f"{path.relative_to(ROOT)} {_digest(path)}\n".encode())
    return digest.hexdigest()


def run_all(
    *,
    report: Callable[[str, float | None], None],
    answered: Callable[[], None] | None = None,
    skip: Collection[str] = (),
    expected: Mapping[str, float] | None = None,
) -> list[str]:
    """Run every stage that is out of date, in order; returns the names of those that ran.

    Args:
        report: called with the name of each stage and the seconds that it took, None if nothing changed.
        answered: called before the first study that the answers do not need, if one has to run.
        skip: studies to leave out.
        expected: seconds of stages and studies, for the progress.

    Raises:
        InvalidInput: params.yaml or the input of a stage cannot be used.
    """
    from modelpred.params import read_params  # noqa: PLC0415

    params, code, ran = read_params(PARAMS), code_digest(), list[str]()
    expected = expected or {}
    record = _read_record()
    for stage in answers_first():
        study = stage.name.partition("@")[2]
        if study in skip:
            continue
        digest = changed(stage, params, record, code)
        if digest is None:
            report(stage.name, None)
            continue
        if study and study not in ANSWERS and answered is not None:
            answered()
            answered = None
        began = time.monotonic()
        name = study or stage.name
        with progress_bar(name, expected=expected.get(name)):
            stage.run()
        ran.append(stage.name)
        record[stage.name] = {"from": digest, "output": _seal(stage.output)}
        write_atomically(RECORD, json.dumps(record, indent=1).encode())
        report(stage.name, time.monotonic() - began)
    return ran


def _read_record() -> dict[str, Any]:
    """What earlier runs recorded; empty if there is nothing that can be read."""
    try:
        return parse_json(read_file(RECORD, again=""), RECORD, again="")
    except InvalidInput:
        return {}


def _show_answers(*, quiet: bool) -> None:
    """Write the report and print where it is, if the folder has no report yet."""
    if REPORT.exists():
        return
    with progress_bar("report"):
        import_module("flows.report").main()
    if not quiet:
        found = read_summary(Path.cwd())
        words = (
            f"{found.title}\nThe report has the answers: {found.report}\nOther studies follow:\n"
        )
        sys.stderr.write(words.replace("\n", os.linesep))


def main(
    *,
    skip: Annotated[list[str] | None, typer.Option(help="A study to leave out.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors only.")] = False,
) -> None:
    """Run the stages of the project in the current folder that are out of date."""
    os.environ.setdefault("MODELPRED_PROGRESS", "off" if quiet else "on")
    with progress_bar("starting"):
        from flows.local_training import PLAIN  # noqa: PLC0415
        from modelpred.params import read_params  # noqa: PLC0415
    os.environ["MODELPRED_RUNNER"] = PLAIN
    warnings.simplefilter("ignore")  # of libraries; what this project warns of is logged
    end_with_owner()
    show_warnings("")
    width = max(len(stage.name) for stage in stages())

    def report(stage: str, seconds: float | None) -> None:
        if not quiet:
            took = "unchanged" if seconds is None else f"{seconds:.1f} s"
            sys.stderr.write(f"  {stage:<{width}} {took:>10}{os.linesep}")

    with one_line_errors("run"):
        read_params(PARAMS)  # before a folder is made
        RECORD.parent.mkdir(exist_ok=True)
        try:
            with run_lock("run"):
                run_all(
                    report=report,
                    answered=partial(_show_answers, quiet=quiet),
                    skip=skip or (),
                    expected=expected_seconds(Path()),
                )
        except AlreadyRunning as other:
            raise InvalidInput(str(other)) from other


if __name__ == "__main__":
    typer.run(main)
