"""Answers whether the model's probabilities can be trusted, from the study `calibration`."""

from __future__ import annotations

import math

from modelpred.report.answer import Answer, Item
from modelpred.report.inputs import ReportInputs
from modelpred.report.words import change, count, number, percent
from modelpred.studies.results import StudyResult

CERTAIN = 2.0  # standard errors between mean confidence and accuracy


def trust_question(inputs: ReportInputs) -> tuple[str, str]:
    """The question as a user asks it, and in one word."""
    if inputs.dataset.classes:
        return "Can I trust the probabilities?", "probabilities"
    return "Can I trust a prediction?", "predictions"


def trust(question: str, _: ReportInputs, result: StudyResult) -> Answer:
    """The answer: mean confidence against accuracy, and how predictions vary with the training rows."""
    bins = result.tables["reliability"].filter(method="full_model")
    items: list[Item] = []
    width = _width(result)
    words = "The predictions vary with the training rows as follows."
    brief = [item.words for item in width]
    if bins.height:
        weight = bins["count"].to_numpy() / bins["count"].sum()
        said, right = (
            float((bins[name].to_numpy() * weight).sum()) for name in ("confidence", "accuracy")
        )
        tests = int(bins["count"].sum())
        verdict = _verdict(said, right, tests)
        words = (
            f"{verdict}: the mean probability of the predicted class is {percent(said)}, and the model is "
            f"right {percent(right)} of the time."
        )
        sentence = verdict[0].lower() + verdict[1:]
        brief = [f"{sentence} (mean {percent(said)}, right {percent(right)} of the time)"]
        row = result.tables["summary"].filter(method="full_model").row(0, named=True)
        items.append(
            Item(
                "Mean gap between probability and share right (expected calibration error)",
                f"{number(100 * row['ece_width'], 2)} percentage points; a perfectly calibrated model would "
                f"have about {number(100 * row['noise_width'], 2)} on {count(tests)} rows",
            )
        )
    return Answer(
        question,
        words,
        brief=brief,
        items=items + _averaging(result) + width,
        note=_coverage(result),
        link="calibration",
    )


def _verdict(said: float, right: float, tests: int) -> str:
    """Whether mean confidence and accuracy differ by more than two standard errors, in words."""
    error = math.sqrt(max(right * (1 - right), 1 / tests) / tests)
    if abs(said - right) <= CERTAIN * error:
        return "On average, yes"
    how = "confident" if said > right else "cautious"
    gap = number(100 * abs(said - right), 2)
    return f"Not quite; the model is too {how} by {gap} percentage points"


def _averaging(result: StudyResult) -> list[Item]:
    losses = dict(result.tables["summary"].select("method", "nll").iter_rows())
    before, after = losses.get("full_model"), losses.get("predicted_bootstrap")
    if before is None or after is None:
        return []
    name = f"Averaging {count(result.metrics['resamples'])} bootstrap models"
    return [Item(name, change(before, after))]


def _width(result: StudyResult) -> list[Item]:
    table = result.tables.get("predictions")
    if table is None or table.is_empty():
        return []
    half = float((table["high"] - table["low"]).to_numpy().mean()) / 2
    return [
        Item(
            "With resampled training rows",
            f"90% intervals of the probabilities are ±{number(100 * half, 2)} percentage points on average",
        )
    ]


def _coverage(result: StudyResult) -> str:
    table = result.tables.get("coverage")
    row = None if table is None else table.filter(method="retraining")
    if row is None or row.is_empty():
        return ""
    return (
        "On simulated tables with known true probabilities, such 90% intervals contain them in "
        f"{percent(row['probabilities'][0], 2)} of cases."
    )
