"""Runs one study on several versions of the data and compares the results; nothing is checked out.

    python -m flows.versions --rev v1 --rev v2 --study valuation
    python -m flows.versions --rev v1 --rev workspace --study memorization

Reads data, targets and predictor of each revision through DVC and runs the study on each with the
params of the working copy. Writes artifacts/versions/<study>/: scores of each version's model on each
version's test rows, the rows that changed between versions, the drift of the values of shared rows
(all as Parquet and CSV), a summary in Markdown and one figure. The numbers are also logged to MLflow.
A revision that cannot be read is named, and the others are compared.
"""

# First: without Prefect, DVC and MLflow it ends the process in one line.
import flows.orchestration  # noqa: F401 # pyright: ignore[reportUnusedImport]

# isort: split

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer

from flows.artifacts import (
    ARTIFACTS,
    DATASET,
    PARAMS,
    PREDICTOR,
    write_json,
    write_table,
    written,
)
from flows.revisions import advice_at, fetch
from flows.runtime import end_with_owner, one_line_errors
from flows.studies import headline, result_of
from modelpred.dataset import read_dataset
from modelpred.errors import InvalidInput
from modelpred.params import read_params
from modelpred.predictor import read_predictor
from modelpred.progress import progress_bar, silent
from modelpred.studies import STUDIES
from modelpred.studies.results import StudyResult
from modelpred.studies.versions import Drift, Version, cross_scores, drift, row_changes
from modelpred.wording import markdown

FOLDER = ARTIFACTS / "versions"
SUMMARY = "summary.md"
LARGEST_CHANGES = 10  # rows that are listed
# Table and column with one value for each row, of the studies that have them.
ROW_VALUES = {
    "valuation": ("values", "value"),
    "memorization": ("rows", "memorization"),
    "labels": ("suspects", "held_out_confidence"),
}


@dataclass(frozen=True)
class Comparison:
    """Results of a study on several versions.

    Attributes:
        revisions: names of the revisions that could be read.
        missing: the reason for each revision that could not be read.
        headlines: the study's headline numbers by revision.
        scores: of each version's model on each version's test rows.
        changes: rows that differ between one revision and the next.
        drifts: change of the rows' values from one revision to the next; empty if the study has no
            values of rows.
    """

    revisions: tuple[str, ...]
    missing: dict[str, str]
    headlines: dict[str, dict[str, float | None]]
    scores: pl.DataFrame
    changes: pl.DataFrame
    drifts: tuple[Drift, ...]


def run(study: str, revisions: Sequence[str]) -> None:
    """Run the study on the revisions, write the comparison and print its summary."""
    if study not in STUDIES:
        raise InvalidInput(f"unknown study {study!r}; known: {', '.join(STUDIES)}")
    with tempfile.TemporaryDirectory() as copies:
        comparison = compare(study, revisions, copies=Path(copies))
    value = ROW_VALUES.get(study, ("", ""))[1]
    folder = FOLDER / study
    with written(folder) as unfinished:
        _write(comparison, unfinished, value=value)
        (unfinished / SUMMARY).write_text(summary(study, comparison) + "\n", encoding="utf-8")
    _log(study, comparison, folder)
    sys.stdout.write(f"{summary(study, comparison)}\n\nWritten: {folder}{os.linesep}")


def compare(study: str, revisions: Sequence[str], *, copies: Path) -> Comparison:
    """Run the study on every revision that can be read, and compare the results.

    Args:
        study: name of the study.
        revisions: names of revisions.
        copies: folder for the artifacts of the revisions.

    Raises:
        InvalidInput: none of the revisions can be read.
    """
    params = read_params(PARAMS)
    config, tolerance = getattr(params, study), params.targets.tolerance
    read: dict[str, Version] = {}
    results: dict[str, StudyResult] = {}
    missing: dict[str, str] = {}
    with progress_bar("versions") as progress:
        for number, revision in enumerate(dict.fromkeys(revisions)):
            progress(number, len(revisions), revision)
            try:
                stages = (DATASET, PREDICTOR)
                folder = fetch(revision, stages, into=copies / str(number))
                read[revision] = _version(revision, folder)
                # The progress bar counts revisions, not the steps inside a study.
                results[revision] = result_of(
                    study, config, tolerance=tolerance, progress=silent, artifacts=folder
                )
            except InvalidInput as error:
                read.pop(revision, None)
                reason = str(error).removeprefix(f"{revision}: ")
                missing[revision] = f"{revision}: {reason}"
                sys.stderr.write(f"versions: {missing[revision]}{os.linesep}")
        progress(len(revisions), len(revisions), "")
    if not read:
        raise InvalidInput("none of the revisions can be read: " + "; ".join(missing.values()))
    pairs = list(pairwise(read))
    changes = [
        row_changes(read[first].dataset, read[second].dataset).select(
            pl.lit(first).alias("before"), pl.lit(second).alias("after"), pl.all()
        )
        for first, second in pairs
    ]
    return Comparison(
        tuple(read),
        missing,
        {name: headline(study, result.metrics) for name, result in results.items()},
        cross_scores(list(read.values()), tolerance=tolerance),
        pl.concat(changes) if changes else pl.DataFrame(),
        _drifts(study, results, pairs),
    )


def _version(name: str, folder: Path) -> Version:
    with advice_at(name):
        dataset = read_dataset(folder / DATASET.name)
        return Version(name, dataset, read_predictor(folder / PREDICTOR.name))


def _drifts(
    study: str, results: dict[str, StudyResult], pairs: list[tuple[str, str]]
) -> tuple[Drift, ...]:
    if study not in ROW_VALUES:
        return ()
    table, value = ROW_VALUES[study]
    return tuple(
        drift(
            (first, results[first].tables[table]), (second, results[second].tables[table]),
            value=value,
        )
        for first, second in pairs
    )  # fmt: skip


def _write(found: Comparison, folder: Path, *, value: str) -> None:
    # Imported late: matplotlib takes half a second, and reading may fail before.
    from modelpred.report.versions import write_figure  # noqa: PLC0415

    write_table(found.scores, folder / "scores")
    write_table(found.changes, folder / "changes")
    for drifted in found.drifts:
        write_table(
            drifted.rows, folder / f"drift-{drifted.before}-{drifted.after}".replace("/", "-")
        )
    write_json(_numbers(found), folder / "versions.json")
    write_figure(found.scores, found.drifts, folder, value=value)


def _numbers(found: Comparison) -> dict[str, Any]:
    """The results without the long tables, as JSON content."""
    return {
        "revisions": list(found.revisions),
        "missing": found.missing,
        "headlines": found.headlines,
        "changes": _counts(found),
        "drift": {
            f"{each.before} to {each.after}": {
                "shared": each.shared,
                **({} if each.spearman is None else vars(each.spearman)),
            }
            for each in found.drifts
        },
    }


def _counts(found: Comparison) -> dict[str, dict[str, int]]:
    """Number of rows by kind of change, for each pair of revisions."""
    counts: dict[str, dict[str, int]] = {}
    for first, second in pairwise(found.revisions):
        rows = found.changes.filter(before=first, after=second)
        counts[f"{first} to {second}"] = dict(rows["change"].value_counts(sort=True).rows())
    return counts


def summary(study: str, found: Comparison) -> str:
    """The results in Markdown."""
    lines = [f"# {study} over {', '.join(map(markdown, found.revisions))}"]
    lines += [f"- not read: {markdown(reason)}" for reason in found.missing.values()]
    lines += ["", "## Scores of each model on each version's test rows", "", _table(found.scores)]
    for pair, counts in _counts(found).items():
        words = ", ".join(f"{count} {change}" for change, count in counts.items())
        lines += ["", f"## {markdown(pair)}", "", f"Rows: {words or 'no row differs'}."]
        drifted = next((d for d in found.drifts if f"{d.before} to {d.after}" == pair), None)
        if drifted is not None:
            lines += ["", _drift_words(drifted), "", _table(drifted.rows.head(LARGEST_CHANGES))]
    lines += ["", "## Headlines", ""]
    lines += [f"- {markdown(name)}: {_words(numbers)}" for name, numbers in found.headlines.items()]
    return "\n".join(lines)


def _drift_words(drifted: Drift) -> str:
    found = drifted.spearman
    if found is None:
        return f"{drifted.shared} shared rows: too few, or all equal, for a rank correlation."
    return (
        f"{drifted.shared} shared rows: rank correlation {found.mean:.3f} (95% interval "
        f"{found.low:.3f} to {found.high:.3f}). Largest changes:"
    )


def _words(numbers: dict[str, float | None]) -> str:
    return ", ".join(
        f"{name} {'none' if number is None else f'{number:.4g}'}"
        for name, number in numbers.items()
    )


def _table(table: pl.DataFrame) -> str:
    """A table as Markdown."""
    rows = [[_cell(cell) for cell in row] for row in table.iter_rows()]
    lines = [[markdown(name) for name in table.columns], ["---"] * table.width, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: object) -> str:
    if cell is None:
        return ""
    return f"{cell:.4g}" if isinstance(cell, float) else markdown(str(cell))


def _log(study: str, found: Comparison, folder: Path) -> None:
    """Log the comparison to MLflow; a failure is only a warning, since the files are written."""
    from modelpred import registry  # noqa: PLC0415

    numbers: dict[str, float] = {}
    for row in found.scores.drop_nulls("loss").iter_rows(named=True):
        numbers[f"loss/{row['model_of']}-on-{row['test_rows_of']}"] = row["loss"]
    for each in found.drifts:
        if each.spearman is not None:
            numbers[f"spearman/{each.before}-to-{each.after}"] = each.spearman.mean
    try:
        registry.log_comparison(
            f"versions-{study}",
            metrics=numbers,
            params={"study": study, "revisions": ", ".join(found.revisions)},
            files=folder,
            root=Path(),
        )
    except Exception as error:  # noqa: BLE001 - any error of MLflow; the files are written already
        sys.stderr.write(
            f"versions: WARNING: written, but not logged to MLflow: {error}{os.linesep}"
        )


def main(
    *,
    rev: Annotated[list[str], typer.Option(help="A tag, branch, commit or workspace.")],
    study: Annotated[str, typer.Option(help="The study to run on each version.")] = "valuation",
) -> None:
    """Run a study on several versions of the data and compare the results."""
    end_with_owner()
    with one_line_errors("versions"):
        run(study, rev)


if __name__ == "__main__":
    typer.run(main)
