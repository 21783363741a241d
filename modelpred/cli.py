"""The `modelpred` command: a thin door to the library and to what the pipeline wrote."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import polars as pl

LISTED_ROWS = 5
SHOWN_CELLS = 3

app = typer.Typer(
    help="Predict the model that training on other data would give.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Project = Annotated[
    Path, typer.Option("--project", help="The folder with params.yaml and artifacts/.")
]


@app.callback()
def door() -> None:
    """Predict the model that training on other data would give."""


@app.command("check-params")
def check_params(project: Project = Path()) -> None:
    """Check params.yaml: unknown keys, wrong types, values out of range."""
    # Here and below, heavy imports wait until a command needs them: --help stays fast.
    from modelpred.dataset import InvalidInput  # noqa: PLC0415
    from modelpred.params import read_params  # noqa: PLC0415

    try:
        read_params(project / "params.yaml")
    except InvalidInput as error:
        sys.exit(str(error))
    typer.echo("params.yaml is well formed.")


@app.command()
def summary(project: Project = Path()) -> None:
    """Print what the last run trained, how good its predictor is, and which rows matter most."""
    artifacts = project / "artifacts"
    report = artifacts / "report" / "index.html"
    if not report.is_file():
        sys.exit(f"{report} is missing; run the pipeline first: make run")
    for part in (_trained(artifacts), _fidelity(artifacts), _values(artifacts)):
        typer.echo(part)
    typer.echo(f"Report: {report}")


def _trained(artifacts: Path) -> str:
    """Which models were trained on what."""
    dataset = _read_json(artifacts / "dataset" / "dataset.json")
    targets = _read_json(artifacts / "targets" / "metrics.json")
    predictor = _read_json(artifacts / "predictor" / "predictor.json")
    return (
        f"Trained: {targets['subsets']:,} {predictor['model']} models on subsets of the "
        f"{predictor['points']} training rows of {dataset['name']}, {targets['parameters']} "
        f"parameters each; {targets['not_converged']} did not converge, "
        f"{targets['degenerate']} had no optimum."
    )


def _fidelity(artifacts: Path) -> str:
    """Mean parameter error of every method by design, the best first."""
    import polars as pl  # noqa: PLC0415

    table = pl.read_parquet(artifacts / "predictor" / "fidelity.parquet")
    designs = table["design"].unique(maintain_order=True).to_list()
    designs.sort(key=lambda design: design != "uniform")
    wide = table.pivot("design", index="method", values="parameter_error")
    wide = wide.select("method", *designs).sort(designs[0])
    time = dict(table.group_by("method").agg(pl.col("microseconds").median()).rows())
    lines = [
        "",
        "Mean relative error of predicted parameters on held-out subsets, by how they were drawn:",
        f"  {'':<18}" + "".join(f"{design:>12}" for design in designs) + f"{'us/subset':>12}",
    ]
    for method, *found in wide.rows():
        cells = "".join(f"{error:>12.4f}" for error in found)
        lines.append(f"  {method.replace('_', ' '):<18}{cells}{time[method]:>12.1f}")
    return "\n".join(lines)


def _values(artifacts: Path) -> str:
    """The rows that help the test loss most, and those that hurt it most."""
    import polars as pl  # noqa: PLC0415

    values = pl.read_parquet(artifacts / "studies" / "valuation" / "values.parquet")
    rows = pl.read_parquet(artifacts / "dataset" / "rows.parquet").with_columns(
        pl.col("row_id").cast(pl.String)
    )
    ordered = (
        values.with_columns(pl.col("row_id").cast(pl.String))
        .join(rows, on="row_id", how="left")
        .sort("value", descending=True)
    )
    shown = [rows.columns[-1], *rows.columns[1 : SHOWN_CELLS + 1]]
    most, least = ordered.head(LISTED_ROWS), ordered.tail(LISTED_ROWS).reverse()
    return "\n".join(
        [
            "",
            "Most valuable rows (Shapley value in test loss, with its standard error):",
            *_value_lines(most, shown),
            "Least valuable rows:",
            *_value_lines(least, shown),
            "",
        ]
    )


def _value_lines(table: "pl.DataFrame", shown: list[str]) -> list[str]:
    return [
        f"  row {row['row_id']:>6}  {row['value']:+.5f} +- {row['standard_error']:.5f}   "
        + ", ".join(f"{name}={row[name]}" for name in shown)
        for row in table.iter_rows(named=True)
    ]


def _read_json(path: Path) -> dict[str, object]:
    return json.loads(path.read_text())


if __name__ == "__main__":
    app()
