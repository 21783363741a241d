"""The result of a study, and its folder: metrics.json, and each table as Parquet and CSV."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from torch import Tensor

from modelpred.sealed import read_json, read_seal, read_table, remake, seal


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


def read_result(folder: Path) -> StudyResult:
    """Return the result that `write_result` wrote.

    Raises:
        InvalidInput: a file is missing or damaged; the message names the study to run again.
    """
    again = study_again(folder.name)
    tables = sorted(name for name in read_seal(folder, again=again) if name.endswith(".parquet"))
    return StudyResult(
        metrics=read_json(folder / "metrics.json", again=again),
        tables={Path(name).stem: read_table(folder / name, again=again) for name in tables},
    )
