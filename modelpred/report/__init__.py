"""The report: tables and figures of one run as a single self-contained HTML file."""

from __future__ import annotations

from pathlib import Path

from modelpred.extras import optional_imports
from modelpred.report.baseline import Baseline, baseline_of
from modelpred.report.inputs import ReportConfig, ReportInputs

__all__ = ["Baseline", "ReportConfig", "ReportInputs", "baseline_of", "write_report"]


def write_report(inputs: ReportInputs, folder: Path) -> Path:
    """Path of `index.html`, written into the folder; the same inputs give the same bytes."""
    # Drawing needs matplotlib, 0.6 s that only a report should pay.
    with optional_imports():
        from modelpred.report.page import write_page  # noqa: PLC0415

    return write_page(inputs, folder)
