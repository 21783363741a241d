"""What models trained without a row say of its label, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from modelpred.report.inputs import ReportInputs
from modelpred.report.words import number, small_percent
from modelpred.studies.labels import DEFAULT_METHOD
from modelpred.targets.families import FAMILIES


def judgement(row: Mapping[str, Any], label: str, inputs: ReportInputs) -> str:
    """What models trained without the row predict for its label, as a phrase with the models as subject.

    Args:
        row: of the table `suspects`.
        label: of the row, as in the user's table.
        inputs: of the report.
    """
    score, classes = row[DEFAULT_METHOD], inputs.dataset.classes
    if not classes:
        return f"predict a label {number(-score)} away"
    other = _suggested(row, label, classes)
    suggestion = f" and suggest {other}" if other else ""
    probability = row.get("probability")
    if probability is None and len(classes) == 2 and _probabilistic(inputs):
        probability = 1 / (1 + math.exp(-score))
    if probability is None:
        return f"confidence {number(score)}{suggestion}"
    return f"give this label {small_percent(probability)}{suggestion}"


def suggestion(row: Mapping[str, Any], label: str, inputs: ReportInputs) -> str:
    """The label and the one that models trained without the row suggest, in a few words."""
    classes = inputs.dataset.classes
    if not classes:
        return f"{label}, {number(-row[DEFAULT_METHOD])} away"
    other = _suggested(row, label, classes)
    return f"{label}, looks like {other}" if other else label


def _suggested(row: Mapping[str, Any], label: str, classes: tuple[str, ...]) -> str | None:
    """The class that models suggest in place of the label; None if they agree with it."""
    if row[DEFAULT_METHOD] >= 0:
        return None
    at = row.get("suggested")
    if at is None:
        return _other(label, classes)
    return None if classes[at] == label else classes[at]


def _other(label: str, classes: tuple[str, ...]) -> str | None:
    """The other one of two classes."""
    others = [name for name in classes if name != label]
    return others[0] if len(classes) == 2 and len(others) == 1 else None


def _probabilistic(inputs: ReportInputs) -> bool:
    family = FAMILIES.get(str(inputs.section("targets").get("model")))
    return family is not None and family.probabilistic
