"""The `modelpred` command: checks tables, prints results of the pipeline, serves predictors."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from modelpred.extras import MissingExtra, require
from modelpred.registry_commands import registry_app
from modelpred.wording import one_line

if TYPE_CHECKING:
    import polars as pl

LISTED_ROWS = 5
SHOWN_CELLS = 3

app = typer.Typer(
    help="Predict the model that would be trained on other rows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich would interpret words in brackets as markup
)

app.add_typer(registry_app, name="registry")

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


@app.command("check-params")
def check_params(project: Project = Path()) -> None:
    """Check params.yaml for unknown keys, wrong types and values out of range."""
    # Commands import heavy modules inside, so that --help is fast.
    from modelpred.errors import InvalidInput  # noqa: PLC0415
    from modelpred.params import read_params  # noqa: PLC0415

    try:
        read_params(project / "params.yaml")
    except InvalidInput as error:
        sys.exit(str(error))
    typer.echo("params.yaml is valid.")


@app.command()
def check(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="A CSV or Parquet file, a folder, glob or openml:NAME."
        ),
    ],
    *,
    label: Annotated[str | None, typer.Option(help="The column to predict.")] = None,
    row_id: Annotated[str | None, typer.Option(help="The column with the ids of the rows.")] = None,
    group: Annotated[
        str | None,
        typer.Option(help="A column whose groups are never split into training and test rows."),
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option(help="A column to leave out; can be repeated.")
    ] = None,
    categories: Annotated[
        list[str] | None, typer.Option(help="A column to treat as categories; can be repeated.")
    ] = None,
    dates: Annotated[
        list[str] | None,
        typer.Option(help="The format of a date column: COLUMN=%d.%m.%Y; can be repeated."),
    ] = None,
    test: Annotated[
        str, typer.Option(help="Test rows: a number, a share, a column or a second file.")
    ] = "auto",
    max_points: Annotated[int, typer.Option(help="Largest number of rows; 0: all.")] = 0,
    delimiter: Annotated[str, typer.Option(help="The separator of cells in a CSV.")] = ",",
    subsets: Annotated[
        int | None,
        typer.Option(help="Number of models to train; by default the usual one.", min=20),
    ] = None,
    trial: Annotated[
        bool, typer.Option(help="Train a few models to estimate time and disk space.")
    ] = True,
    seconds: Annotated[
        float, typer.Option(help="How long this may take; a longer trial has more rows.", min=0)
    ] = 20.0,
) -> None:
    """Report how the pipeline would read a file, and print the section for params.yaml."""
    from modelpred.check import check as check_source  # noqa: PLC0415
    from modelpred.check import config_of  # noqa: PLC0415
    from modelpred.errors import InvalidInput  # noqa: PLC0415

    try:
        config = config_of(
            source=source, label=label, row_id=row_id, group=group, drop=drop or (),
            categories=categories or (), dates=dates or (), test=test, max_points=max_points or None,
            delimiter=delimiter,
        )  # fmt: skip
        checked = check_source(config)
    except InvalidInput as error:
        sys.exit(str(error))
    typer.echo(checked.found)
    if trial and checked.table is not None:
        from modelpred.api.progress import progress_bar  # noqa: PLC0415
        from modelpred.check.budget import trial_text  # noqa: PLC0415

        with progress_bar(shown=True) as report:
            estimated = trial_text(
                checked.table, checked.config, subsets=subsets, seconds=seconds, report=report
            )
        typer.echo(f"\n{estimated}")
    typer.echo(f"\n{checked.section}")
    if checked.problems:
        sys.exit(1)


@app.command()
def summary(project: Project = Path()) -> None:
    """Print the results of the last run: models, errors of the predictor, values of rows."""
    from modelpred.errors import InvalidInput  # noqa: PLC0415

    artifacts = project / "artifacts"
    report = artifacts / "report" / "index.html"
    if not report.is_file():
        sys.exit(f"{report} is missing; run the pipeline first with: make run")
    try:
        parts = (_trained(artifacts), _fidelity(artifacts), _values(artifacts))
    except InvalidInput as error:
        sys.exit(str(error))
    for part in parts:
        typer.echo(part)
    typer.echo(f"Report: {report}")


@app.command()
def serve(
    name: Annotated[str, typer.Argument(help="Name of the registered model (see registry list).")],
    *,
    version: Annotated[str, typer.Option(help="Version number or alias.")] = "champion",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 5001,
    project: Project = Path(),
) -> None:
    """Serve a registered predictor over HTTP, until stopped."""
    require(("mlflow", "starlette", "uvicorn"))
    import uvicorn  # noqa: PLC0415

    from modelpred.errors import InvalidInput  # noqa: PLC0415
    from modelpred.registry import files_of  # noqa: PLC0415
    from modelpred.serving import MOST_CONNECTIONS, application_of  # noqa: PLC0415

    try:
        served = application_of(files_of(project, name, version))
    except InvalidInput as error:
        sys.exit(str(error))
    typer.echo(f"Serving {name} ({version}) at http://{host}:{port}/invocations; Ctrl-C stops it.")
    uvicorn.run(
        served, host=host, port=port, log_level="warning", server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
    )  # fmt: skip


@app.command()
def explore(
    folder: Annotated[
        Path, typer.Argument(help="What ModelPred.save wrote, or a project with artifacts/.")
    ] = Path(),
    *,
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any.", min=0, max=65535)] = 5002,
    engine: Annotated[
        str, typer.Option(help="Models of edits: auto, exact (retrained) or predicted.")
    ] = "auto",
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Show a page on which training rows are edited and the retrained model is seen, until stopped."""
    require(("fastapi", "starlette", "uvicorn"))
    from modelpred.errors import InvalidInput  # noqa: PLC0415
    from modelpred.page import serve_folder  # noqa: PLC0415

    try:
        serve_folder(folder, port=port, engine=engine, opened=browser, say=typer.echo)
    except InvalidInput as error:
        sys.exit(str(error))


@app.command("lds")
def score_attributions(
    files: list[Path],
    project: Project = Path(),
    order: Annotated[
        Literal["test-train", "train-test"] | None,
        typer.Option(
            help="Axes of the matrix: test-train (captum, kronfluence, quanda) or train-test (dattri, "
            "TRAK, pyDVL). By default, the shape tells."
        ),
    ] = None,
) -> None:
    """Compute the LDS of attribution matrices of test and training rows with the run's models.

    A file is .npy, .pt, .safetensors, .csv or .parquet, with rows and columns in the order of
    artifacts/studies/lds/order.csv. A positive entry means that the training row raises the margin
    of the test row.
    """
    import polars as pl  # noqa: PLC0415

    from modelpred.errors import InvalidInput  # noqa: PLC0415
    from modelpred.sealed import read_table  # noqa: PLC0415
    from modelpred.studies import attribution_files, lds  # noqa: PLC0415
    from modelpred.studies.matrix_files import read_matrix  # noqa: PLC0415

    folder = project / "artifacts" / "studies" / "lds"
    try:
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
        methods = read_table(folder / "lds.parquet", again=lds.AGAIN)
    except InvalidInput as error:
        sys.exit(str(error))
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


def _trained(artifacts: Path) -> str:
    """The rows that are used, if not all are, and the trained models."""
    from modelpred.dataset.usage import rows_used  # noqa: PLC0415
    from modelpred.sealed import read_json, remake  # noqa: PLC0415

    dataset = read_json(artifacts / "dataset" / "dataset.json", again=remake("dataset"))
    targets = read_json(artifacts / "targets" / "metrics.json", again=remake("targets"))
    predictor = read_json(artifacts / "predictor" / "predictor.json", again=remake("predictor"))
    used = rows_used(
        dataset["points"],
        dataset["test"],
        available=dataset.get("available"),
        classes=bool(dataset["classes"]),
    )
    return (f"Rows: {used}.\n" if used else "") + (
        f"Trained: {targets['subsets']:,} {predictor['model']} models on subsets of the "
        f"{predictor['points']} training rows of {dataset['name']}, {targets['parameters']} "
        f"parameters each; {targets['not_converged']} did not converge, "
        f"{targets['degenerate']} had no optimum, {targets.get('redrawn', 0)} were drawn again because "
        "they lacked a class."
    )


def _fidelity(artifacts: Path) -> str:
    """Mean parameter error of each method and design as text, the best method first."""
    import polars as pl  # noqa: PLC0415

    from modelpred.sealed import read_table, remake  # noqa: PLC0415

    table = read_table(artifacts / "predictor" / "fidelity.parquet", again=remake("predictor"))
    designs = table["design"].unique(maintain_order=True).to_list()
    designs.sort(key=lambda design: design != "uniform")
    wide = table.pivot("design", index="method", values="parameter_error")
    wide = wide.select("method", *designs).sort(designs[0])
    time = dict(table.group_by("method").agg(pl.col("microseconds").median()).rows())
    width = 2 + max(map(len, wide["method"]))
    lines = [
        "",
        "Mean relative error of predicted parameters, by the way held-out subsets were drawn:",
        f"  {'':<{width}}" + "".join(f"{design:>12}" for design in designs) + f"{'us/subset':>12}",
    ]
    for method, *errors in wide.rows():
        cells = "".join(f"{error:>12.4f}" for error in errors)
        lines.append(f"  {method.replace('_', ' '):<{width}}{cells}{time[method]:>12.1f}")
    return "\n".join(lines)


def _values(artifacts: Path) -> str:
    """The rows with the highest and the lowest values as text."""
    import polars as pl  # noqa: PLC0415

    from modelpred.sealed import read_json, read_table, remake  # noqa: PLC0415

    dataset, again = artifacts / "dataset", remake("dataset")
    label = str(read_json(dataset / "dataset.json", again=again)["label_name"])
    rows = read_table(dataset / "rows.parquet", again=again).cast({"row_id": pl.String})
    path = artifacts / "studies" / "valuation" / "values.parquet"
    values = read_table(path, again=remake("studies@valuation"))
    ordered = values.sort("value", descending=True)
    most, least = (
        part.join(_described(rows, label, only=part["row_id"]), on="row_id", maintain_order="left")
        for part in (ordered.head(LISTED_ROWS), ordered.tail(LISTED_ROWS).reverse())
    )
    return "\n".join(
        [
            "",
            "Most valuable rows: value +- standard error, and the most unusual cells",
            *_value_lines(most),
            "Least valuable rows",
            *_value_lines(least),
            "",
        ]
    )


def _described(rows: "pl.DataFrame", label: str, *, only: "pl.Series") -> "pl.DataFrame":
    """Labels of these rows and the cells that deviate most from their column's mean, as text."""
    import polars as pl  # noqa: PLC0415

    from modelpred.dataset.deviation import distances  # noqa: PLC0415

    names = [name for name in rows.columns if name not in ("row_id", label)]
    deviations = distances(rows, names)
    positions = {row_id: at for at, row_id in enumerate(rows["row_id"])}
    words: list[str] = []
    for row_id in only:
        at = positions[row_id]
        farthest = sorted(range(len(names)), key=lambda column, at=at: -deviations[at, column])[
            :SHOWN_CELLS
        ]
        shown = [
            f"{one_line(names[column])}={_cell(rows[names[column]][at])}" for column in farthest
        ]
        words.append(", ".join([f"{one_line(label)}={_cell(rows[label][at])}", *shown]))
    return pl.DataFrame({"row_id": only, "words": words})


def _cell(value: object) -> str:
    if value is None:
        return "missing"
    return f"{value:g}" if isinstance(value, float) else one_line(str(value))


def _value_lines(table: "pl.DataFrame") -> list[str]:
    return [
        f"  row {row:>6}  {value:+.5f} +- {error:.5f}   {words}"
        for row, value, error, words in table.select(
            "row_id", "value", "standard_error", "words"
        ).iter_rows()
    ]


def run() -> None:
    """Run the command; a package that is not installed ends it with one line."""
    try:
        app()
    except MissingExtra as error:
        sys.exit(str(error))


if __name__ == "__main__":
    run()
