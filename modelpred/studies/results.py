"""The result of a study, and its folder: metrics.json, and each table as Parquet and CSV."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from torch import Tensor

from modelpred.sealed import (
    SEAL,
    parse_json,
    parse_seal,
    parse_table,
    read_file,
    remake,
    require_sealed,
    seal,
)
from modelpred.studies.content_checks import require_contents


@dataclass(frozen=True)
class StudyResult:
    """The result of a study: numbers and tables."""

    metrics: dict[str, Any]
    tables: dict[str, pl.DataFrame]


def written_number(value: float | Tensor) -> float | None:
    """Return the number, or None if it is not finite (JSON and tables have no nan)."""
    number = float(value)
    return number if math.isfinite(number) else None


def write_result(result: StudyResult, folder: Path) -> None:
    """Write metrics.json, and every table as Parquet and CSV, and seal the folder.

    A table with lists in its cells is written only as Parquet.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result.metrics, indent=2, allow_nan=False)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
    for name, table in result.tables.items():
        table.write_parquet(folder / f"{name}.parquet")
        if not any(kind.is_nested() for kind in table.dtypes):
            table.write_csv(folder / f"{name}.csv")
    seal(folder)


def study_again(study: str) -> str:
    """Return the advice for a damaged folder of that study."""
    return remake(f"studies@{study}")


def read_result(
    folder: Path, *, read: Callable[[Path], bytes] | None = None, again: str | None = None
) -> StudyResult:
    """Return the result that `write_result` wrote.

    Args:
        folder: named after the study.
        read: returns the content of a file; default: of an ordinary file.
        again: the advice for a folder that cannot be used; default: how to run the study again.

    Raises:
        InvalidInput: a file is missing or damaged, or not what this version writes; the message names
            the study to run again.
    """
    again = again or study_again(folder.name)
    read = read or partial(read_file, again=again)
    hashes = parse_seal(read(folder / SEAL), folder / SEAL, again=again)

    def content(path: Path) -> bytes:
        return require_sealed(read(path), path, hashes, again=again)

    places = [folder / name for name in sorted(hashes) if name.endswith(".parquet")]
    path = folder / "metrics.json"
    metrics = parse_json(content(path), path, again=again)
    tables = {path.stem: parse_table(content(path), path, again=again) for path in places}
    require_contents(folder.name, metrics, tables, folder, again=again)
    return StudyResult(metrics, tables)
