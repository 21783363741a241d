"""From the studies' results to sections; a new study adds a module and a line here.

A study that was skipped or is missing gets a section that says why, and one without a section of
its own shows its metrics, so nothing that was computed is left out.
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
    "edits": ("Deletion and addition: a model without these rows, or with those", edits_blocks),
    "lds": ("Margins: which rows move which prediction (LDS)", lds_blocks),
    "valuation": ("Values: what each row is worth", valuation_blocks),
    "labels": ("Labels: which look wrong", labels_blocks),
    "selection": ("Selection: which rows to keep", selection_blocks),
    "memorization": ("Memorization: what is known only by heart", memorization_blocks),
    "calibration": ("Calibration: how sure the model is", calibration_blocks),
    "attribution": ("Attribution: which rows are responsible", attribution_blocks),
}


def study_sections(inputs: ReportInputs) -> list[Section]:
    """The sections of all studies that are known here, were run or were skipped."""
    names = dict.fromkeys([*SECTIONS, *inputs.studies, *inputs.skipped])
    return [_section(name, inputs) for name in names]


def _section(name: str, inputs: ReportInputs) -> Section:
    title, write = SECTIONS.get(name, (name.replace("_", " ").capitalize(), _any_blocks))
    result = inputs.studies.get(name)
    if result is None:
        reason = inputs.skipped.get(name, "its results are not among the artifacts of this run")
    elif "skipped" in result.metrics:
        reason = str(result.metrics["skipped"])
    else:
        return Section(name, title, write(inputs, result))
    return Section(name, title, [Text(f"This study was not run: {reason.rstrip('.')}.")])


def _any_blocks(_: ReportInputs, result: StudyResult) -> list[Block]:
    return [facts_table("What this study measured", result.metrics)]
