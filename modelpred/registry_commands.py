"""`modelpred registry`: list, show, promote, roll back and rebuild registered predictors."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from modelpred.command_group import CommandGroup

if TYPE_CHECKING:
    from modelpred.registry import VersionRecord

registry_app = typer.Typer(
    cls=CommandGroup,
    help="List, show, promote, roll back and rebuild registered predictors.",
    no_args_is_help=True,
)

Project = Annotated[Path, typer.Option("--project", help="The folder with mlflow.db.")]
Name = Annotated[str, typer.Argument(help="Name of the registered model (see list).")]


@registry_app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(help="Only this registered model.")] = None,
    *,
    made_of: Annotated[
        str | None,
        typer.Option(help="Only versions made from this git commit or hash of the data."),
    ] = None,
    project: Project = Path(),
) -> None:
    """List registered versions, newest first, with alias and whether the gates approved them, or why not."""
    from modelpred.registry import list_versions  # noqa: PLC0415

    records = list_versions(project, name, made_of=made_of)
    if not records:
        typer.echo("No version is registered.", err=True)
    for record in records:
        commit = record.tags.get("git_commit", "no commit")
        verdict = _verdict(record)
        if reason := record.tags.get("gates_reason"):
            verdict += f" because {reason}"
        aliases = ",".join(record.aliases) or "-"
        typer.echo(
            f"{record.name}  {record.version:>3}  {_when(record)}  {aliases:<10}  {commit[:10]:<10}"
            f"  {verdict}"
        )


@registry_app.command()
def show(
    name: Name,
    version: Annotated[str, typer.Option(help="Version number or alias.")] = "champion",
    *,
    params: Annotated[
        bool, typer.Option("--params", help="Print only its params, as a params.yaml.")
    ] = False,
    project: Project = Path(),
) -> None:
    """Show the commit and data of a version, its errors, and the commands that reproduce it."""
    from modelpred.registry import show_version  # noqa: PLC0415

    record = show_version(project, name, version)
    content = _params(record) if params else {}
    if params:
        typer.echo(yaml.safe_dump(content, sort_keys=False), nl=False)
        return
    typer.echo(_described(record))


@registry_app.command()
def promote(
    name: Name,
    version: Annotated[str, typer.Argument(help="Version number or alias.")],
    *,
    project: Project = Path(),
) -> None:
    """Make a version the champion, which is served by default, even if it failed the gates."""
    from modelpred import registry  # noqa: PLC0415

    record = registry.promote(project, name, version)
    typer.echo(f"{record.name} version {record.version} is champion.")


@registry_app.command()
def rollback(name: Name, *, project: Project = Path()) -> None:
    """Make the previous champion champion again."""
    from modelpred import registry  # noqa: PLC0415

    present, former = registry.rollback(project, name)
    typer.echo(f"{name} version {former.version} is champion again, in place of {present.version}.")


@registry_app.command()
def fingerprint(*, project: Project = Path()) -> None:
    """Print the fingerprint (hash) of the predictor in artifacts/, which identifies its version."""
    from modelpred.predictor import predictor_fingerprint  # noqa: PLC0415
    from modelpred.sealed import check_inputs, check_sealed, remake  # noqa: PLC0415

    folder = project / "artifacts" / "predictor"
    check_sealed(folder, again=remake("predictor"))
    check_inputs(folder, again=remake("predictor"))
    typer.echo(predictor_fingerprint(folder))


@registry_app.command()
def rebuild(*, project: Project = Path()) -> None:
    """Rebuild a lost mlflow.db from mlruns/registry.json and the files in mlruns/."""
    from modelpred import registry  # noqa: PLC0415

    for line in registry.rebuild(project):
        typer.echo(line)


def _params(record: "VersionRecord") -> dict[str, Any]:
    """The params of the version's lineage; InvalidInput where the database holds none."""
    from modelpred.registry.store import DATABASE, REBUILD  # noqa: PLC0415
    from modelpred.sealed import parse_json  # noqa: PLC0415

    return parse_json(record.tags.get("params", "").encode(), Path(DATABASE), again=REBUILD)


def _when(record: "VersionRecord") -> str:
    return f"{datetime.fromtimestamp(record.created_at, UTC):%Y-%m-%d %H:%M}"


def _verdict(record: "VersionRecord") -> str:
    """What the gates said of the version."""
    said = {"passed": "approved", "failed": "not approved"}
    return said.get(record.tags.get("gates", ""), "not checked")


def _described(record: "VersionRecord") -> str:
    tags = record.tags
    lines = [
        f"{record.name} version {record.version} ({', '.join(record.aliases) or 'no alias'})",
        f"  registered        {_when(record)} UTC by modelpred {tags.get('modelpred_version', '?')}",
        f"  gates             {_verdict(record)}{' because' if tags.get('gates_reason') else ''}",
        *(f"    {reason}" for reason in tags.get("gates_reason", "").split("; ") if reason),
        f"  against champion  {tags.get('gates_champion', 'not compared')}",
        *([f"  by hand           {tags['moved_by_hand']}"] if "moved_by_hand" in tags else []),
        f"  fingerprint       {record.fingerprint}",
        f"  git commit        {tags.get('git_commit', 'none: not in a git repository')}",
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
    """Commands that reproduce the version's files and print their fingerprint."""
    commit = record.tags.get("git_commit")
    if commit is None:
        return ["It cannot be reproduced: it was registered outside a git repository."]
    words = ["To reproduce it, run these commands in the project and compare the fingerprint:"]
    if commit.endswith("-dirty"):
        words = [
            "Tracked files differed from the commit (-dirty). These commands give the same files",
            "only if the differences were in params.yaml.",
        ]
    folder = f"../{record.name}-{record.version}"
    params = f"modelpred registry show {record.name} --version {record.version} --params"
    return [
        *words,
        f"  git worktree add {folder} {commit.removesuffix('-dirty')}",
        f"  {params} > {folder}/params.yaml",
        f"  (cd {folder} && dvc repro predictor)",
        f"  modelpred registry fingerprint --project {folder}",
    ]
