"""The `modelpred` command: checks tables, prints results of the pipeline, serves predictors."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from modelpred import row_commands, table_commands
from modelpred.command_group import CommandGroup
from modelpred.errors import InvalidInput
from modelpred.extras import require
from modelpred.registry_commands import registry_app

app = typer.Typer(
    cls=CommandGroup,
    help="Predict the model that would be trained on other rows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich would interpret words in brackets as markup
)

app.add_typer(registry_app, name="registry")
app.command()(table_commands.run)
app.command()(table_commands.check)
app.command()(row_commands.suspects)
app.command()(row_commands.values)

Project = Annotated[
    Path, typer.Option("--project", help="The folder with params.yaml and artifacts/.")
]


def _print_version(requested: bool) -> bool:  # noqa: FBT001 - typer passes it by position
    if requested:
        from importlib.metadata import version  # noqa: PLC0415

        typer.echo(f"modelpred {version('modelpred')}")
        raise typer.Exit
    return requested


@app.callback()
def main(
    *,
    _: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """Predict the model that would be trained on other rows."""
    try:
        Path.cwd()
    except FileNotFoundError as error:  # torch's libraries would abort
        raise InvalidInput("the current folder has been removed; change to another one") from error


@app.command("check-params")
def check_params(project: Project = Path()) -> None:
    """Check params.yaml for unknown keys, wrong types and values out of range."""
    # Commands import heavy modules inside, so that --help is fast.
    from modelpred.params import read_params  # noqa: PLC0415

    read_params(project / "params.yaml")
    typer.echo("params.yaml is valid.")


@app.command()
def summary(
    project: Project = Path(),
    *,
    as_json: table_commands.AsJson = False,
) -> None:
    """Print the answers of the last run: wrong labels, values, the worst rows, probabilities."""
    from modelpred.run_summary import read_summary  # noqa: PLC0415

    found = read_summary(project)
    typer.echo(found.as_json() if as_json else str(found))


@app.command()
def serve(
    name: Annotated[str, typer.Argument(help="Name of the registered model (see registry list).")],
    *,
    version: Annotated[str, typer.Option(help="Version number or alias.")] = "champion",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 5001,
    project: Project = Path(),
) -> None:
    """Serve a registered predictor over HTTP; runs until stopped."""
    require(("mlflow", "starlette", "uvicorn"))
    import uvicorn  # noqa: PLC0415

    from modelpred.connections import LimitedHeadProtocol  # noqa: PLC0415
    from modelpred.registry import files_of  # noqa: PLC0415
    from modelpred.serving import MOST_CONNECTIONS, application_of  # noqa: PLC0415

    served = application_of(files_of(project, name, version))
    typer.echo(f"Serving {name} ({version}) at http://{host}:{port}/invocations; Ctrl-C stops it.")
    uvicorn.run(
        served, host=host, port=port, log_level="warning", server_header=False,
        limit_concurrency=MOST_CONNECTIONS, timeout_graceful_shutdown=2, ws="none",
        http=LimitedHeadProtocol,
    )  # fmt: skip


@app.command()
def explore(
    folder: Annotated[
        Path,
        typer.Argument(help="A folder written by ModelPred.save, or a project with artifacts/."),
    ] = Path(),
    *,
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any.", min=0, max=65535)] = 5002,
    engine: Annotated[
        str, typer.Option(help="How models are computed: auto, exact (retrained) or predicted.")
    ] = "auto",
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Open a page to change training rows and see the retrained model; runs until stopped."""
    require(("fastapi", "starlette", "uvicorn"))
    from modelpred.page import serve_folder  # noqa: PLC0415

    serve_folder(folder, port=port, engine=engine, opened=browser, say=typer.echo)


@app.command("lds")
def score_attributions(
    files: Annotated[
        list[Path], typer.Argument(help="Matrices [test rows, training rows], or transposed.")
    ],
    project: Project = Path(),
    order: Annotated[
        Literal["test-train", "train-test"] | None,
        typer.Option(
            help="Axes of the matrix: test-train (captum, kronfluence, quanda) or train-test (dattri, "
            "TRAK, pyDVL). By default, it follows from the shape."
        ),
    ] = None,
) -> None:
    """Score attribution matrices with the run's retrained models (linear datamodelling score, LDS).

    A file is .npy, .pt, .safetensors, .csv or .parquet, with rows and columns in the order of
    artifacts/studies/lds/order.csv. A positive entry means that the training row raises the margin
    of the test row.
    """
    import polars as pl  # noqa: PLC0415

    from modelpred.sealed import check_inputs  # noqa: PLC0415
    from modelpred.studies import attribution_files, lds  # noqa: PLC0415
    from modelpred.studies.matrix_files import read_matrix  # noqa: PLC0415

    folder = project / "artifacts" / "studies" / "lds"
    check_inputs(folder, again=lds.AGAIN)
    bank = lds.read_margins(folder / "bank.parquet")
    points, tests = bank.weights.shape[1], bank.margins.shape[1]
    rows = [
        lds.score_attribution(
            bank,
            attribution_files.oriented(
                read_matrix(file),
                tests=tests, points=points, order=order, name=file.stem,
            ),
            name=file.stem,
        )
        for file in files
    ]  # fmt: skip
    methods = lds.read_scores(folder / "lds.parquet")
    table = pl.concat([pl.DataFrame(rows, schema=lds.LDS_SCHEMA), methods])
    typer.echo(
        f"{'':<24}{'form':<10}{'LDS':>7}   95% interval over {bank.margins.shape[1]} test rows"
    )
    for method, form, score, low, high in table.select(
        "method", "form", "lds", "low", "high"
    ).iter_rows():
        words = method.replace("_", " ")
        typer.echo(f"{words:<24}{form:<10}{score:>7.3f}   {low:.3f} to {high:.3f}")
    for note in filter(None, map(attribution_files.sign_note, rows)):
        typer.echo(note)


def run() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    run()
