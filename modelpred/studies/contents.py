"""What readers of a study's folder need in it: columns of its tables, and metrics, each of a kind.

A sealed folder is as it was written, but another version of the code may have written it. Other columns
and metrics than those named here are not checked: the methods that are compared add some. The names are
here and not in the modules of the studies, so that a reader imports no study.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from modelpred.sealed import refuse


@dataclass(frozen=True)
class Needed:
    """Names of columns or metrics, by kind.

    Attributes:
        text: none is missing.
        number: may be missing.
        flag: true or false; may be missing.
        section: metrics with metrics in them.
    """

    text: tuple[str, ...] = ()
    number: tuple[str, ...] = ()
    flag: tuple[str, ...] = ()
    section: tuple[str, ...] = ()

    def kinds(self) -> dict[str, str]:
        """The kind of each name."""
        return {name: kind for kind, names in vars(self).items() for name in names}


@dataclass(frozen=True)
class Contents:
    """What is needed of a study.

    Attributes:
        tables: by name.
        metrics: that it always has.
        optional: metrics that it may have.
        may_lack: tables that it may have.
        by_method: a table whose methods each have a section of metrics, with the time of a query.
    """

    tables: Mapping[str, Needed]
    metrics: Needed = field(default_factory=Needed)
    optional: Needed = field(default_factory=Needed)
    may_lack: tuple[str, ...] = ()
    by_method: str | None = None


def _ends(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}{end}" for name in names for end in ("", "_low", "_high"))


_METHOD = ("method",)
_BY_SIZE = Needed(
    _METHOD,
    (
        *("size", "subsets", "parameter_error", "low", "high", "spearman"),
        *_ends("test_loss_error"),
    ),
)
_VALUES = ("value", "standard_error", "rank", "true_value", "true_standard_error")
_PLACE = ("class", "feature")

CONTENTS: dict[str, Contents] = {
    "edits": Contents(
        {
            "edits": _BY_SIZE,
            "additions": _BY_SIZE,
            "predicted_against_true": Needed(
                number=("size", "true_loss", "predicted_loss", "parameter_error")
            ),
            "break_even": Needed(
                ("way",),
                (
                    *("retraining_microseconds", "predictor_microseconds"),
                    *("preparation_seconds", "queries"),
                ),
                ("busy",),
            ),
        },
        optional=Needed(section=("addition", "retraining")),
        may_lack=("additions", "break_even"),
        by_method="edits",
    ),
    "lds": Contents(
        {
            "lds": Needed(("method", "form"), ("lds", "low", "high", "test_rows", "subsets")),
        }
    ),
    "valuation": Contents(
        {
            "values": Needed(("row_id",), _VALUES),
            "groups": Needed(number=("rows", *_VALUES)),
            "methods": Needed(
                _METHOD, (*_ends("spearman"), "top_overlap", "bottom_overlap", "seconds")
            ),
        },
        optional=Needed(
            number=(
                *("permutations", *_ends("spearman"), "top_overlap", "bottom_overlap"),
                *("truth_reliability", "truth_seconds", "truth_top_overlap"),
            )
        ),
        may_lack=("groups",),
    ),
    "labels": Contents(
        {
            "suspects": Needed(
                ("row_id",), ("wrong", "held_out_confidence"), ("mislabelled", "cutoff")
            ),
            "detection": Needed(_METHOD, (*_ends("auroc"), "recall", "seconds"), ("ours",)),
            "classes": Needed(
                ("method", "class"),
                ("rows", "planted", *_ends("auroc")),
            ),
            "recall": Needed(_METHOD, ("inspected", "recall")),
        },
        Needed(number=("planted", *_ends("wrong"))),
        Needed(number=("share", "best_auroc")),
    ),
    "selection": Contents(
        {
            "curves": Needed(
                ("method", "order"), ("share", "rows", "loss", "low", "high", "accuracy")
            ),
            "areas": Needed(("method", "order"), ("gain", "low", "high")),
            "methods": Needed(
                _METHOD, ("rows", "loss", "low", "high", "accuracy", "seconds"), ("ours",)
            ),
            "chosen": Needed(("row_id",)),
        },
        Needed(
            number=("share", "rows", "validation_rows", "test_rows"),
            section=("methods",),
        ),
        Needed(number=_ends("lead")),
    ),
    "memorization": Contents(
        {
            "rows": Needed(
                ("row_id",),
                (*_ends("memorization", "soft"), "rank", "true_memorization", "true_soft"),
            ),
            "influences": Needed(
                ("row_id",), ("test_row", "influence", "low", "high", "true_influence")
            ),
            "methods": Needed(("method", "form"), ("different", "ceiling", "seconds")),
        },
        Needed(("soft",), ("subsets", "share", "different", "ceiling", "truth_seconds")),
    ),
    "calibration": Contents(
        {
            "summary": Needed(
                _METHOD,
                ("nll", "brier", "ece_width", "ece_mass", "noise_width", "noise_mass"),
            ),
            "reliability": Needed(_METHOD, ("bin", "confidence", *_ends("accuracy"), "count")),
            "refits": Needed(
                _METHOD,
                (
                    "nll",
                    *_ends("std_ratio"),
                    "within",
                    "endpoint_error",
                    "endpoint_error_95",
                    "seconds",
                ),
            ),
            "predictions": Needed(
                number=("test_row", "label", "before", "low", "high", "true_low", "true_high")
            ),
            "parameters": Needed(_PLACE, ("before", "low", "high", "true_low", "true_high")),
            "coverage": Needed(
                ("method", "about"), ("tables", *_ends("probabilities", "parameters"))
            ),
        },
        Needed(number=("resamples", "truth_seconds")),
    ),
    "attribution": Contents(
        {
            "methods": Needed(_METHOD, (*_ends("spearman"), "above", "seconds")),
            "parameters": Needed(_PLACE, ("parameter", "value")),
            "responsible": Needed(
                ("row_id", *_PLACE), ("parameter", "place", "derivative", "removal", "exact")
            ),
            "effects": Needed(("row_id",), ("test_row", "place", "effect", "exact")),
            "flip_methods": Needed(
                _METHOD, ("rows", "found", "confirmed", "size", "common", "seconds")
            ),
            "flips": Needed(
                ("method", "removed"),
                (
                    *("test_row", "predicted", "margin", "size"),
                    *("predicted_margin", "retrained_margin"),
                ),
                ("found", "confirmed"),
            ),
        },
        Needed(number=("spearman", "above"), section=("methods",)),
    ),
}


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
