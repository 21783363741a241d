"""The commands `suspects` and `values`, which answer one question about the rows of a file.

They train models on this machine, or predict them where that is faster (modelpred/engine). They print
a few rows, write all rows into a CSV, and make no project.
"""

import json
import math
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelpred.errors import InvalidInput, writing
from modelpred.row_fits import fit_rows, groups_of, labels_of, shown_columns
from modelpred.table_commands import AsJson, Quiet, Terminal, with_table_options
from modelpred.wording import WRONG_NUMBER, cell_words, one_line

if TYPE_CHECKING:
    import polars as pl

    from modelpred.check.project import Options
    from modelpred.dataset import Dataset

CERTAIN = 2.0  # standard errors from zero
SHOWN_CELLS = 3
WIDEST = 60

Count = Annotated[int, typer.Option(help="Number of rows to print.", min=1)]


@with_table_options(group=None, test="auto")
def suspects(
    options: "Options",
    *,
    count: Count = 10,
    out: Annotated[
        Path | None, typer.Option(help="The CSV to write; default: NAME-suspects.csv.")
    ] = None,
    forest: Annotated[
        bool, typer.Option("--forest", help="Also use a random forest, which takes longer.")
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """List the rows whose label looks wrong, the most suspicious first.

    Each label is compared with models that were trained on random subsets without its row.
    """
    _require_place(out)
    talk = Terminal(quiet=quiet or as_json)
    ready = fit_rows(options, talk, every_row=True)
    dataset = ready.dataset
    found = ready.fitted.suspects(forest=forest)
    table = _with_cells(found.rows.drop("position"), dataset, every_row=True)
    head = "The rows whose label is furthest from the predictions of models trained without them:"
    if found.count is not None:
        head = (
            f"About {found.count:,.0f} of {len(table):,} labels are wrong (95% interval {found.low:,.0f} to "
            f"{found.high:,.0f}), according to models trained without the row. "
            f"{WRONG_NUMBER}. The most suspicious:"
        )
    path = out or Path(f"{dataset.name}-suspects.csv")
    _answer(table, head, path, count=count, dataset=dataset, as_json=as_json)


@with_table_options()
def values(
    options: "Options",
    *,
    groups: Annotated[
        str | None, typer.Option(help="A column: each of its groups of rows gets one value.")
    ] = None,
    count: Count = 5,
    permutations: Annotated[
        int | None,
        typer.Option(
            help="Number of random orders of the rows, even; more is more precise. Default: 20, or "
            "fewer where 20 would take longer than --minutes.",
            min=2,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The CSV to write; default: NAME-values.csv.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Estimate how much each row, or each group of rows, lowers the test loss.

    A value is the average decrease of the test loss when the row is added to a random subset of the other
    rows (Shapley value). Rows with positive values help. Values within two standard errors of zero are
    marked, because they cannot be told from zero.
    """
    _require_place(out)
    if permutations is not None and permutations % 2:
        raise InvalidInput(f"--permutations must be even, got {permutations}: orders come in pairs")
    talk = Terminal(quiet=quiet or as_json)
    ready = fit_rows(options, talk, every_row=False, groups=groups, orders=permutations)
    dataset = ready.dataset
    found = ready.fitted.values(
        dataset.test_features.numpy(),
        labels_of(dataset, dataset.test_labels),
        groups=None if groups is None else groups_of(dataset, groups),
        permutations=ready.orders,
    )
    table = with_certainty(found)
    unclear = int((~table["differs_from_zero"]).sum())
    helping = int((table["differs_from_zero"] & (table["value"] > 0)).sum())
    things = "rows" if groups is None else f"groups of {groups}"
    head = (
        f"{helping:,} {things} help, {len(table) - unclear - helping:,} hurt; the values of the other "
        f"{unclear:,} cannot be told from zero."
    )
    if groups is None:
        table = _with_cells(table, dataset, every_row=False)
        if found := _suggestion(dataset):
            head = f"{head}\n{found}"
    path = out or Path(f"{dataset.name}-values.csv")
    _answer(table, head, path, count=count, dataset=dataset, as_json=as_json, both=True)


def _suggestion(dataset: "Dataset") -> str:
    """Which columns could be valued as groups; empty: none."""
    from modelpred.dataset.grouping import suggestion  # noqa: PLC0415

    found = suggestion(dataset.rows, shown_columns(dataset))
    return f"{found}: use --groups." if found else ""


def _require_place(out: Path | None) -> None:
    """Refuse a path that cannot be a file, before models are trained."""
    if out is not None and not out.parent.is_dir():
        raise InvalidInput(f"--out: there is no folder {out.parent}")
    if out is not None and out.is_dir():
        raise InvalidInput(f"--out: {out} is a folder; name a CSV file")
    if out is not None and os.path.lexists(out) and stat.S_ISFIFO(out.lstat().st_mode):
        # Writing would wait for a reader. The shell's >(command) is a link, and has one.
        raise InvalidInput(f"--out: {out} is a pipe; name a CSV file")


def with_certainty(found: "pl.DataFrame") -> "pl.DataFrame":
    """The values, the highest first, with `differs_from_zero`: more than two standard errors away."""
    import polars as pl  # noqa: PLC0415

    error = pl.col("standard_error").fill_null(0.0)
    certain = (pl.col("value").abs() > CERTAIN * error).alias("differs_from_zero")
    return found.with_columns(certain).sort("value", descending=True)


def _with_cells(table: "pl.DataFrame", dataset: "Dataset", *, every_row: bool) -> "pl.DataFrame":
    """The table with the row's own cells after its columns."""
    import polars as pl  # noqa: PLC0415

    rows = pl.concat([dataset.rows, dataset.test_rows]) if every_row else dataset.rows
    rows = rows.cast({"row_id": pl.String})
    renamed = {
        name: f"{name} (cell)"
        for name in rows.columns
        if name in table.columns and name != "row_id"
    }
    rows = rows.rename(renamed)
    if every_row:
        rows = rows.drop(renamed.get(dataset.label_name, dataset.label_name))
    return table.join(rows, on="row_id", how="left", maintain_order="left")


def _answer(
    table: "pl.DataFrame",
    head: str,
    path: Path,
    *,
    count: int,
    dataset: "Dataset",
    as_json: bool,
    both: bool = False,
) -> None:
    """Print the first rows, or the first and the last, and write all into the CSV."""
    with writing(path), path.open("wb") as file:
        table.write_csv(file)
    shown = table.head(count).to_dicts()
    last = table.tail(min(count, max(0, len(table) - count))).reverse().to_dicts() if both else []
    if as_json:
        content = {"answer": head, "rows": [*shown, *last], "file": str(path)}
        typer.echo(json.dumps(content, indent=2, default=str, ensure_ascii=False))
        return
    unusual = _unusual(dataset)
    typer.echo(head)
    for rows in (shown, last):
        for row in rows:
            typer.echo(f"  {_line(row, unusual)}")
        if rows is shown and last:
            typer.echo("  ...")
    typer.echo(f"All {len(table):,} with their cells: {path}")


def _unusual(dataset: "Dataset") -> dict[str, list[str]]:
    """The columns of each row whose cells are furthest from the others', by row id."""
    import polars as pl  # noqa: PLC0415

    from modelpred.dataset.deviation import distances  # noqa: PLC0415

    rows = pl.concat([dataset.rows, dataset.test_rows])
    names = list(dataset.column_names)
    far = distances(rows, names)
    order = (-far).argsort(axis=1)[:, :SHOWN_CELLS]
    ids = rows["row_id"].cast(pl.String).to_list()
    return {row_id: [names[at] for at in order[row]] for row, row_id in enumerate(ids)}


def _line(row: dict[str, Any], unusual: dict[str, list[str]]) -> str:
    """A row of the table in words."""
    name = (
        f"group {row['group']} ({row['rows']:,} rows)" if "group" in row else f"row {row['row_id']}"
    )
    if "value" in row:
        said = value_words(row["value"], row.get("standard_error"))
        said += "" if row["differs_from_zero"] else ", cannot be told from zero"
    else:
        said = _doubt(row)
    names = unusual.get(str(row.get("row_id")), [])
    cells = ", ".join(f"{one_line(key)}={cell_words(row.get(key))}" for key in names)
    return f"{one_line(name, most=WIDEST)}: {said}" + (
        f" ({one_line(cells, most=WIDEST)})" if cells else ""
    )


def value_words(value: float, error: float | None) -> str:
    """The standard error with two digits and the value with as many decimals; alone, a value has three digits."""
    if not error:
        return f"{value:+.{_decimals(value, digits=3)}f}"
    decimals = _decimals(error, digits=2)
    return f"{value:+.{decimals}f} ± {error:.{decimals}f}"


def _decimals(number: float, *, digits: int) -> int:
    """The decimals that show so many digits of a number, without an exponent."""
    return max(0, digits - 1 - math.floor(math.log10(abs(number)))) if number else 0


def _doubt(row: dict[str, Any]) -> str:
    """What models say of a label."""
    said = f"label {cell_words(row['label'])}"
    if row.get("suggested") is not None and row["suggested"] != row["label"]:
        said += f", models suggest {cell_words(row['suggested'])}"
    if row.get("wrong") is not None:
        return f"{said}, wrong with probability {row['wrong']:.0%}"
    return f"{said}, off by {-row['confidence']:.3g}"
