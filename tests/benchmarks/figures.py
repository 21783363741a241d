"""Measured figures: one line of JSON each in figures.jsonl, from which RESULTS.md is rendered.

    {"benchmark": "spam", "figure": "predictor, uniform", "value": 0.0209, "unit": "relative error",
     "n": 500, "low": 0.0186, "high": 0.0231, "date": "2026-11-30", "machine": {...}, "versions": {...}}

A benchmark that runs replaces its own lines and leaves the others alone.
"""

import json
import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

FIGURES = Path(__file__).with_name("figures.jsonl")
PACKAGES = ("modelpred", "numpy", "polars", "scikit-learn", "torch")


@dataclass(frozen=True)
class Figure:
    """A measured number.

    Attributes:
        name: what was measured; with the benchmark's name it is unique.
        value: the number, a median or a mean.
        unit: of the value.
        n: how many repeats or cases it comes from.
        low: end of the spread, the lowest repeat or the end of a 95% interval.
        high: the other end.
    """

    name: str
    value: float
    unit: str
    n: int
    low: float
    high: float


@dataclass(frozen=True)
class Benchmark:
    """An entry of the list of benchmarks.

    Attributes:
        about: what it measures, in one line.
        minutes: how long it takes on two quiet cores.
        measure: its figures; True for a quick run, whose figures are not kept.
    """

    about: str
    minutes: float
    measure: Callable[[bool], Iterable[Figure]]


def number(name: str, value: float, unit: str) -> Figure:
    """A number that was measured once."""
    return Figure(name, float(value), unit, 1, float(value), float(value))


def median(name: str, times: list[float], unit: str = "s") -> Figure:
    """The median of repeats, lowest to highest."""
    return Figure(name, float(np.median(times)), unit, len(times), min(times), max(times))


def circumstances() -> dict[str, Any]:
    """Date, machine and versions of a measurement that ends now."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "processor": platform.machine(),
            "system": platform.system(),
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 1),
        },
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in PACKAGES},
    }


def line(benchmark: str, figure: Figure, told: dict[str, Any]) -> dict[str, Any]:
    """A figure as it is written."""
    values = {field.name: getattr(figure, field.name) for field in fields(Figure)}
    return {"benchmark": benchmark, "figure": values.pop("name"), **values, **told}


def read(path: Path = FIGURES) -> list[dict[str, Any]]:
    """All lines."""
    return [json.loads(row) for row in path.read_text(encoding="utf-8").splitlines()]


def replace(benchmark: str, lines: list[dict[str, Any]], path: Path = FIGURES) -> None:
    """Put the lines of a benchmark in the place of its last."""
    others = [row for row in read(path) if row["benchmark"] != benchmark] if path.exists() else []
    # Sorted by benchmark; the figures of one stay in the order of the measurement.
    rows = sorted([*others, *lines], key=lambda row: row["benchmark"])
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def shown(value: float, unit: str) -> str:
    """A value with three digits, relative errors as percentages."""
    number, mark = (100 * value, "%") if unit == "relative error" else (value, "")
    if number == 0:
        return f"0{mark}"
    digits = max(0, 2 - int(np.floor(np.log10(abs(number)))))
    return f"{number:,.{min(digits, 8)}f}{mark}"


def section(
    benchmark: str, about: str, lines: list[dict[str, Any]], claims: dict[str, list[str]]
) -> str:
    """The section of RESULTS.md about a benchmark: its figures and the claims that they support.

    Args:
        benchmark: its name.
        about: what it measures.
        lines: its figures.
        claims: pages with a claim, by figure.
    """
    first = lines[0]
    machine = first["machine"]
    versions = ", ".join(f"{name} {value}" for name, value in first["versions"].items())
    rows = [
        f"| {row['figure']} | {shown(row['value'], row['unit'])} | "
        f"{shown(row['low'], row['unit'])} to {shown(row['high'], row['unit'])} | {row['n']} | "
        f"{row['unit']} | {', '.join(claims.get(row['figure'], []))} |"
        for row in lines
    ]
    load = "an idle machine" if machine["load"] is None else f"load average {machine['load']:g}"
    source = f"`python -m tests.benchmarks {benchmark}`: {about}."
    where = f"{machine['cores']} cores ({machine['processor']}, {machine['system']}), {load}"
    return "\n".join(
        [
            f"## Figures of {benchmark}",
            "",
            f"{source} {first['date']}; {where}; {versions}.",
            "",
            "| figure | value | spread | n | unit | claimed in |",
            "|---|---:|---:|---:|---|---|",
            *rows,
            "",
        ]
    )
