"""Refuses a study's folder that lacks what its readers need.

A sealed folder is as it was written, but another version of the code may have written it. Other columns
and metrics than those of `CONTENTS` are not checked: the methods that are compared add some.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from modelpred.sealed import refuse
from modelpred.studies import CONTENTS
from modelpred.studies.contents import Contents, Needed

TIMED = Needed(number=("microseconds",))
ENGINE = Needed(section=("engine",))  # of a study that may predict or retrain


def require_contents(
    study: str,
    metrics: Mapping[str, Any],
    tables: Mapping[str, pl.DataFrame],
    folder: Path,
    *,
    again: str,
) -> None:
    """Refuse metrics and tables without what their readers need.

    Args:
        study: its name; a study that CONTENTS lacks is not checked.
        metrics: of the study.
        tables: of the study, by name.
        folder: where they were read, for the message.
        again: the advice.

    Raises:
        InvalidInput: names the first table or metric that is missing or of another kind.
    """
    needed = CONTENTS.get(study)
    if needed is None or isinstance(metrics.get("skipped"), str):
        return
    for file, why in _problems(needed, metrics, tables):
        if why is not None:
            raise refuse(folder / file, why, again=again)


def _problems(
    needed: Contents, metrics: Mapping[str, Any], tables: Mapping[str, pl.DataFrame]
) -> Iterator[tuple[str, str | None]]:
    """Each file, and what is wrong with it."""
    yield "metrics.json", _lacking(needed.metrics, metrics)
    yield "metrics.json", _lacking(needed.optional, metrics, optional=True)
    yield "metrics.json", _lacking(ENGINE, metrics, optional=True)
    for name, columns in needed.tables.items():
        table = tables.get(name)
        if table is not None:
            yield f"{name}.parquet", _lacking_columns(columns, table)
        elif name not in needed.may_lack:
            yield f"{name}.parquet", "it is missing"
    if needed.by_method is not None:
        methods = tables[needed.by_method]["method"].unique(maintain_order=True).to_list()
        yield "metrics.json", _lacking(Needed(section=tuple(methods)), metrics)
        for method in methods:
            yield "metrics.json", _lacking(TIMED, metrics[method])


def _lacking(needed: Needed, metrics: Mapping[str, Any], *, optional: bool = False) -> str | None:
    """What is wrong with the metrics, with what was expected; None if nothing is."""
    for name, kind in needed.kinds().items():
        if name not in metrics:
            if optional:
                continue
            return f"expected a metric {name!r} ({kind}), got {', '.join(metrics)}"
        got = _kind_of(metrics[name])
        if got != kind and not (got == "missing" and kind == "number"):
            return f"expected metric {name!r} to be a {kind}, got {metrics[name]!r}"
    return None


def _kind_of(value: object) -> str:
    kinds = {"flag": bool, "number": (int, float), "text": str, "section": dict}
    if value is None:
        return "missing"
    return next((kind for kind, of in kinds.items() if isinstance(value, of)), "list")


def _lacking_columns(needed: Needed, table: pl.DataFrame) -> str | None:
    """What is wrong with the columns, with what was expected; None if nothing is."""
    for name, kind in needed.kinds().items():
        if name not in table.columns:
            return f"expected a column {name!r} ({kind}), got {', '.join(table.columns)}"
        cells = table[name]
        if not _holds(cells, kind):
            return f"expected column {name!r} to hold a {kind} per row, got {cells.dtype}"
        if kind == "text" and cells.null_count():
            return f"expected a text in every row of column {name!r}"
    return None


def _holds(cells: pl.Series, kind: str) -> bool:
    if kind == "text":
        return cells.dtype == pl.String
    if cells.dtype == pl.Null:  # all of them are missing
        return True
    return cells.dtype == pl.Boolean if kind == "flag" else cells.dtype.is_numeric()
