"""`modelpred registry`: which predictors are registered, what each follows from, and which one is champion."""

import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml

if TYPE_CHECKING:
    from modelpred.registry import VersionRecord

registry_app = typer.Typer(
    help="Registered predictors: list, show, promote, roll back, rebuild.", no_args_is_help=True
)

Project = Annotated[Path, typer.Option("--project", help="The folder with mlflow.db.")]
Name = Annotated[str, typer.Argument(help="The registered model, as `list` names it.")]


@contextmanager
def _one_line_errors() -> Generator[None]:
    # Heavy imports wait until a command needs them: --help stays fast.
    from modelpred.errors import InvalidInput  # noqa: PLC0415

    try:
        yield
    except InvalidInput as error:
        sys.exit(str(error))


@registry_app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(help="Only this registered model.")] = None,
    *,
    made_of: Annotated[
        str | None,
        typer.Option(help="Only versions made of this: a git commit, or a hash of the data."),
    ] = None,
    project: Project = Path(),
) -> None:
    """List registered versions, newest first, with alias and verdict."""
    from modelpred.registry import list_versions  # noqa: PLC0415

    with _one_line_errors():
        records = list_versions(project, name, made_of=made_of)
    if not records:
        typer.echo("No version is registered here.", err=True)
    for record in records:
        commit = record.tags.get("git_commit", "no commit")
        verdict = record.tags.get("gates", "not judged")
        if reason := record.tags.get("gates_reason"):
            verdict += f": {reason}"
        aliases = ",".join(record.aliases) or "-"
        typer.echo(
            f"{record.name}  {record.version:>3}  {_when(record)}  {aliases:<10}  {commit[:10]:<10}"
            f"  gates {verdict}"
        )


@registry_app.command()
def show(
    name: Name,
    version: Annotated[str, typer.Option(help="A number or an alias.")] = "champion",
    *,
    params: Annotated[
        bool, typer.Option("--params", help="Only its params, as a params.yaml.")
    ] = False,
    project: Project = Path(),
) -> None:
    """Show what a version follows from, its errors, and how to reproduce it."""
    from modelpred.registry import show_version  # noqa: PLC0415

    with _one_line_errors():
        record = show_version(project, name, version)
    if params:
        content = json.loads(record.tags["params"])
        typer.echo(yaml.safe_dump(content, sort_keys=False), nl=False)
        return
    typer.echo(_described(record))


@registry_app.command()
def promote(
    name: Name,
    version: Annotated[str, typer.Argument(help="A number or an alias.")],
    *,
    project: Project = Path(),
) -> None:
    """Make a version champion by hand, whatever its gates said."""
    from modelpred import registry  # noqa: PLC0415

    with _one_line_errors():
        record = registry.promote(project, name, version)
    typer.echo(f"{record.name} version {record.version} is champion.")


@registry_app.command()
def rollback(name: Name, *, project: Project = Path()) -> None:
    """Make the champion before the present one champion again."""
    from modelpred import registry  # noqa: PLC0415

    with _one_line_errors():
        present, former = registry.rollback(project, name)
    typer.echo(f"{name} version {former.version} is champion again, no longer {present.version}.")


@registry_app.command()
def fingerprint(*, project: Project = Path()) -> None:
    """Print the fingerprint of the predictor in artifacts/, by which versions are told apart."""
    from modelpred.predictor import predictor_fingerprint  # noqa: PLC0415

    with _one_line_errors():
        typer.echo(predictor_fingerprint(project / "artifacts" / "predictor"))


@registry_app.command()
def rebuild(*, project: Project = Path()) -> None:
    """Make a lost mlflow.db again, from mlruns/registry.json and the files beside it."""
    from modelpred import registry  # noqa: PLC0415

    with _one_line_errors():
        for line in registry.rebuild(project):
            typer.echo(line)


def _when(record: "VersionRecord") -> str:
    return f"{datetime.fromtimestamp(record.created_at, UTC):%Y-%m-%d %H:%M}"


def _described(record: "VersionRecord") -> str:
    tags = record.tags
    lines = [
        f"{record.name} version {record.version} ({', '.join(record.aliases) or 'no alias'})",
        f"  registered        {_when(record)} UTC by modelpred {tags.get('modelpred_version', '?')}",
        f"  gates             {tags.get('gates', 'not judged')}",
        *(f"    {reason}" for reason in tags.get("gates_reason", "").split("; ") if reason),
        f"  beside champion   {tags.get('gates_champion', 'not compared')}",
        *([f"  by hand           {tags['moved_by_hand']}"] if "moved_by_hand" in tags else []),
        f"  fingerprint       {record.fingerprint}",
        f"  git commit        {tags.get('git_commit', 'none: the project was under no git')}",
        f"  data set          {tags.get('dataset_fingerprint', '?')}",
        *(
            f"  {tag.removeprefix('dvc.'):<17} {value}"
            for tag, value in sorted(tags.items())
            if tag.startswith("dvc.")
        ),
        f"  files             {record.source}",
        "  parameter error   "
        + ", ".join(
            f"{metric.split('/')[1]} {value:.4f}"
            for metric, value in sorted(record.metrics.items())
            if metric.startswith("predictor/") and metric.endswith("/parameter_error")
        ),
    ]
    return "\n".join([*lines, "", *_reproduction(record)])


def _reproduction(record: "VersionRecord") -> list[str]:
    """The commands that make the same files again, and how to see that they did."""
    commit = record.tags.get("git_commit")
    if commit is None:
        return ["It cannot be reproduced by git: it was registered outside of a repository."]
    told = ["Reproduce it, from this project's folder, and compare the fingerprint:"]
    if commit.endswith("-dirty"):
        told = [
            "Tracked files differed from the commit when it was made (-dirty): these commands give",
            "the same files only where the change was in params.yaml.",
        ]
    place = f"../{record.name}-{record.version}"
    params = f"modelpred registry show {record.name} --version {record.version} --params"
    return [
        *told,
        f"  git worktree add {place} {commit.removesuffix('-dirty')}",
        f"  {params} > {place}/params.yaml",
        f"  (cd {place} && dvc repro predictor)",
        f"  modelpred registry fingerprint --project {place}",
    ]
