"""The commands `run` and `check`, which start from a user's file."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import wraps
from inspect import Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelpred.errors import InvalidInput
from modelpred.launching import ends_with_this_process

if TYPE_CHECKING:
    from modelpred.check.project import Options
    from modelpred.progress import Progress

FILE_HELP = "A CSV or Parquet file, a folder of Parquet files, a glob, or openml:NAME."
Label = Annotated[str | None, typer.Option(help="The column to predict; required with FILE.")]
RowId = Annotated[str | None, typer.Option(help="The column with the ids of the rows.")]
Group = Annotated[
    str | None,
    typer.Option(help="A column whose groups are never split into training and test rows."),
]
Drop = Annotated[list[str] | None, typer.Option(help="A column to leave out; can be repeated.")]
Categories = Annotated[
    list[str] | None, typer.Option(help="A column to treat as categories; can be repeated.")
]
Dates = Annotated[
    list[str] | None,
    typer.Option(help="The format of a date column: COLUMN=%d.%m.%Y; can be repeated."),
]
Test = Annotated[str, typer.Option(help="Test rows: a number, a share, a column or a second file.")]
MaxPoints = Annotated[
    int | None,
    typer.Option(
        help="Largest number of rows; 0: all. Default: all, or fewer where all would take longer than "
        "--minutes.",
        min=0,
    ),
]
Delimiter = Annotated[str, typer.Option(help="The separator of cells in a CSV.")]
Model = Annotated[
    str,
    typer.Option(
        help="The kind of model: auto, logistic, softmax, svm, ridge_classifier, ridge or mlp."
    ),
]
Strength = Annotated[
    str,
    typer.Option(
        "--C", help="Weight of the data against the regulariser: a number, or auto (validation)."
    ),
]
Minutes = Annotated[
    float,
    typer.Option(
        help="Approximate time limit on this machine; of `check`: that of the run.", min=0.5
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print only the answer, or errors.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


File = Annotated[str, typer.Argument(metavar="FILE", help=FILE_HELP)]
FileOrNone = Annotated[
    str | None,
    typer.Argument(
        metavar="[FILE]", help=f"{FILE_HELP} Without FILE, the project in --project runs."
    ),
]


def _options(
    source: File,
    *,
    label: Label = None,
    row_id: RowId = None,
    group: Group = None,
    drop: Drop = None,
    categories: Categories = None,
    dates: Dates = None,
    test: Test = "auto",
    max_points: MaxPoints = None,
    delimiter: Delimiter = ",",
    model: Model = "auto",
    C: Strength = "auto",  # noqa: N803 - the name that every library gives it
    minutes: Minutes = 5.0,
) -> "Options":
    """The options of a file as one object."""
    from modelpred.check.project import Options  # noqa: PLC0415

    return Options(
        source=source, label=label, row_id=row_id, group=group, drop=tuple(drop or ()),
        categories=tuple(categories or ()), dates=tuple(dates or ()), test=test,
        max_points=max_points, delimiter=delimiter, model=model, C=C, minutes=minutes,
    )  # fmt: skip


Command = Callable[..., None]


def with_table_options(
    *,
    file_required: bool = True,
    **fixed: Any,  # noqa: ANN401 - options differ
) -> Callable[[Command], Command]:
    """Decorate a command: its parameter `options` becomes a file and the options of `_options`.

    Args:
        file_required: False: the file may be left out, and the command then gets None as `options`.
        fixed: values of the options that the command does not offer.
    """

    def decorate(command: Command) -> Command:
        shared = dict(signature(_options).parameters)
        if not file_required:
            shared["source"] = shared["source"].replace(annotation=FileOrNone, default=None)
        own = dict(signature(command).parameters)
        del own["options"]
        offered = {name: each for name, each in shared.items() if name not in fixed} | own

        @wraps(command)
        def decorated(**values: Any) -> None:  # noqa: ANN401 - options differ
            table = {name: values[name] for name in shared if name not in fixed}
            quiet = bool(values.get("quiet") or values.get("as_json"))
            with Terminal(quiet=quiet).bar("starting"):  # imports may take seconds
                options = None if table["source"] is None else _options(**table, **fixed)
            command(options, **{name: values[name] for name in own})

        # typer reads the options from the signature and from the annotations.
        decorated.__signature__ = Signature(list(offered.values()))  # pyright: ignore[reportAttributeAccessIssue]
        decorated.__annotations__ = {name: each.annotation for name, each in offered.items()}
        return decorated

    return decorate


@with_table_options(file_required=False)
def run(
    options: "Options | None",
    *,
    out: Annotated[
        Path | None, typer.Option(help="The folder of the run; default: NAME-modelpred.")
    ] = None,
    project: Annotated[
        Path, typer.Option("--project", help="Without FILE: the folder with params.yaml.")
    ] = Path(),
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run all stages from a file to the report, except those whose inputs have not changed.

    Writes params.yaml, the results and the report into the folder NAME-modelpred, and prints the answers.
    """
    began = time.monotonic()
    talk = Terminal(quiet=quiet or as_json)
    with talk.bar("starting"):
        from modelpred.check.plan_file import skipped_studies  # noqa: PLC0415
        from modelpred.check.project import prepare_project  # noqa: PLC0415
        from modelpred.run_summary import read_summary  # noqa: PLC0415
        from modelpred.wording import time_words  # noqa: PLC0415

    if options is None:
        if not project.is_dir():
            raise InvalidInput(f"--project: there is no folder {project}")
        folder, skipped = project, skipped_studies(project)
    else:
        prepared = prepare_project(options, out, tell=talk.say, bar=talk.bar)
        folder, skipped = prepared.folder, prepared.skipped
    words = ["-m", "flows.run", *(f"--skip={study}" for study in skipped)]
    _run_stages(folder, words, quiet=talk.quiet)
    summary = read_summary(folder)
    talk.say(f"Finished in {time_words(time.monotonic() - began)}.\n")
    typer.echo(summary.as_json() if as_json else str(summary))


class Terminal:
    """Texts and progress bars on stderr; bars only on a terminal, nothing if quiet."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet

    def say(self, text: str) -> None:
        """Print a text."""
        if not self.quiet:
            typer.echo(text, err=True)

    @contextmanager
    def bar(self, what: str, expected: float | None = None) -> Generator["Progress"]:
        """Show how far a step is, and the time left if so many seconds are expected."""
        from modelpred.progress import progress_bar  # noqa: PLC0415

        with progress_bar(what, shown=not self.quiet, expected=expected) as report:
            yield report


def _run_stages(folder: Path, words: list[str], *, quiet: bool) -> None:
    """Run the stages of a project: through DVC in a project that has dvc.yaml, else in order.

    If a stage fails, it has printed the reason, and this process exits with its status.
    """
    commands = [[sys.executable, *words, *(["--quiet"] if quiet else [])]]
    if (folder / "dvc.yaml").is_file():
        from modelpred.extras import require  # noqa: PLC0415

        require(("dvc", "mlflow"))
        dvc = [sys.executable, "-m", "dvc", "repro", *(["--quiet"] if quiet else [])]
        commands = [dvc, [sys.executable, "-m", "flows.publish"]]
        _private_folders(folder)
    # Stages are started as `python`, which is this one's also where its environment is not activated.
    programs = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    )
    surroundings = {**os.environ, "PATH": programs}
    for command in commands:
        try:
            done = subprocess.run(
                ends_with_this_process(command),
                cwd=folder,
                check=False,
                stdout=sys.stderr,
                env=surroundings,
            )
        except KeyboardInterrupt:
            sys.exit("stopped; run the same command again to continue")
        if done.returncode < 0:
            sys.exit(
                f"signal {-done.returncode} ended the stages; run the same command again to continue"
            )
        if done.returncode:
            sys.exit(done.returncode)


def _private_folders(folder: Path) -> None:
    """Make DVC's folders before DVC does, which opens them to all."""
    for path, mode in ((folder / ".modelpred", 0o755), (folder / ".modelpred" / "dvc", 0o700)):
        path.mkdir(mode=mode, exist_ok=True)


@with_table_options()
def check(
    options: "Options",
    *,
    trial: Annotated[
        bool, typer.Option(help="Train a few models to choose settings and estimate the time.")
    ] = True,
) -> None:
    """Print what `modelpred run` would do with a file: columns, decisions, settings and time."""
    talk = Terminal(quiet=False)
    with talk.bar(f"reading {options.source}"):
        from modelpred.check import decisions_text  # noqa: PLC0415
        from modelpred.check.project import inspect, propose, section_texts  # noqa: PLC0415

        checked = inspect(options)
    typer.echo(f"{checked.found}\n")
    if not trial:
        typer.echo(f"{decisions_text(checked.decisions)}\n\n{checked.section}")
        return
    proposal = propose(checked, options, bar=talk.bar)
    typer.echo(f"{decisions_text(proposal.decisions)}\n\n{proposal.time_text}\n")
    typer.echo(section_texts(proposal))
