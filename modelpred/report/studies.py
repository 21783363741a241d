"""Sections of the studies, written by the function `NAME_blocks` of the module modelpred.report.NAME.

A study that was skipped or is missing gets a section with the reason. A study without such a module
gets a table of its metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

from modelpred.progress import tracked
from modelpred.report.blocks import Block, Section, Text, facts_table
from modelpred.report.inputs import ReportInputs
from modelpred.studies import ANSWERS, STUDIES
from modelpred.studies.results import StudyResult

Write = Callable[[ReportInputs, StudyResult], list[Block]]


# Studies of the predictions, not of the data; the page has them last.
ABOUT_PREDICTIONS = ("edits", "lds")


def data_sections(inputs: ReportInputs) -> list[Section]:
    """The sections on the data: those of the first screen's answers, then all others."""
    known = dict.fromkeys([*ANSWERS, *STUDIES, *inputs.studies, *inputs.skipped])
    shown = [name for name in known if name not in ABOUT_PREDICTIONS]
    return [study_section(name, inputs) for name in tracked(shown, "writing sections")]


def study_section(name: str, inputs: ReportInputs) -> Section:
    """The section of a study, or the reason why it was not run."""
    known = STUDIES.get(name)
    title = name.replace("_", " ").capitalize() if known is None else known["title"]
    reason = not_run(name, inputs)
    if reason is None:
        result = inputs.studies[name]
        return Section(name, title, [*_blocks_of(name)(inputs, result), *_engine(result)])
    return Section(name, title, [Text(f"This study was not run: {reason}.")])


def _engine(result: StudyResult) -> list[Block]:
    """A sentence on how the study got its models; nothing if it has no choice."""
    engine = result.metrics.get("engine")
    return [Text(engine["summary"])] if engine else []


def not_run(name: str, inputs: ReportInputs) -> str | None:
    """Why a study has no results, without a full stop; None if it has."""
    result = inputs.studies.get(name)
    if result is None:
        reason = inputs.skipped.get(name, "its results are missing from the artifacts")
    elif "skipped" in result.metrics:
        reason = str(result.metrics["skipped"])
    else:
        return None
    return reason.rstrip(".")


def _blocks_of(name: str) -> Write:
    if name not in STUDIES or find_spec(f"modelpred.report.{name}") is None:
        return _any_blocks
    return getattr(import_module(f"modelpred.report.{name}"), f"{name}_blocks")


def _any_blocks(_: ReportInputs, result: StudyResult) -> list[Block]:
    return [facts_table("Metrics of this study", result.metrics, measured=True)]
