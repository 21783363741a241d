"""Sections of the studies. A new study adds a module and a line in SECTIONS.

A study that was skipped or is missing gets a section with the reason. A study that is not in
SECTIONS gets a table of its metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from modelpred.report.attribution import attribution_blocks
from modelpred.report.blocks import Block, Section, Text, facts_table
from modelpred.report.calibration import calibration_blocks
from modelpred.report.edits import edits_blocks
from modelpred.report.inputs import ReportInputs
from modelpred.report.labels import labels_blocks
from modelpred.report.lds import lds_blocks
from modelpred.report.memorization import memorization_blocks
from modelpred.report.selection import selection_blocks
from modelpred.report.valuation import valuation_blocks
from modelpred.studies.utility import StudyResult

Write = Callable[[ReportInputs, StudyResult], list[Block]]
SECTIONS: Mapping[str, tuple[str, Write]] = {
    "edits": ("Deletions and additions: models without some rows, or with more", edits_blocks),
    "lds": ("Margins: linear datamodelling score (LDS)", lds_blocks),
    "valuation": ("Values: rows that help and rows that hurt", valuation_blocks),
    "labels": ("Labels: labels that look wrong", labels_blocks),
    "selection": ("Selection: rows to keep", selection_blocks),
    "memorization": ("Memorization: rows that the model memorizes", memorization_blocks),
    "calibration": ("Calibration: reliability of the probabilities", calibration_blocks),
    "attribution": ("Attribution: rows behind coefficients and predictions", attribution_blocks),
}


def study_sections(inputs: ReportInputs) -> list[Section]:
    """The sections of all studies: those in SECTIONS, and others that were run or skipped."""
    names = dict.fromkeys([*SECTIONS, *inputs.studies, *inputs.skipped])
    return [_section(name, inputs) for name in names]


def _section(name: str, inputs: ReportInputs) -> Section:
    title, write = SECTIONS.get(name, (name.replace("_", " ").capitalize(), _any_blocks))
    result = inputs.studies.get(name)
    if result is None:
        reason = inputs.skipped.get(name, "its results are missing from the artifacts")
    elif "skipped" in result.metrics:
        reason = str(result.metrics["skipped"])
    else:
        return Section(name, title, write(inputs, result))
    return Section(name, title, [Text(f"This study was not run: {reason.rstrip('.')}.")])


def _any_blocks(_: ReportInputs, result: StudyResult) -> list[Block]:
    return [facts_table("Metrics of this study", result.metrics)]
