"""The first screen of the report: four questions about the data, answered in words and numbers.

    Which labels look wrong?               the study `labels`
    Which rows help, and which hurt?       the study `valuation`
    What happens without the worst rows?   the study `selection`
    Can I trust the probabilities?         the study `calibration`

A study that was not run gives an answer that says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from modelpred.report.inputs import ReportInputs
from modelpred.report.studies import not_run
from modelpred.report.suspects import judgement
from modelpred.report.valuation import row_cells, row_words, signed
from modelpred.report.words import change, count, number, percent, plain
from modelpred.studies.results import StudyResult
from modelpred.wording import counted

LISTED = 5  # most suspicious rows
EXTREMES = 3  # rows that help most, and rows that hurt most
REMOVED = 0.95  # share of rows that is left when the worst go
FEW = 1e-4  # smaller errors would be written with an exponent
CERTAIN = 2.0  # standard errors from zero


@dataclass(frozen=True)
class Item:
    """A row or a number that supports an answer: its name and a few words."""

    name: str
    words: str


@dataclass(frozen=True)
class Answer:
    """The answer to one question.

    Attributes:
        question: as a user asks it.
        words: the answer, in one or two sentences.
        items: rows and numbers that support it.
        note: how certain it is.
        link: anchor of the section with the details.
    """

    question: str
    words: str
    items: Sequence[Item] = ()
    note: str = ""
    link: str = ""


def answers(inputs: ReportInputs) -> list[Answer]:
    """The answers to all questions, in the order of the page."""
    asked: tuple[tuple[str, str, Callable[[str, ReportInputs, StudyResult], Answer]], ...] = (
        ("Which labels look wrong?", "labels", _labels),
        ("Which rows help, and which hurt?", "valuation", _values),
        ("What happens without the worst rows?", "selection", _removal),
        (_trust_question(inputs), "calibration", _trust),
    )
    found: list[Answer] = []
    for question, study, answer in asked:
        reason = not_run(study, inputs)
        if reason is None:
            found.append(answer(question, inputs, inputs.studies[study]))
        else:
            found.append(Answer(question, f"Not answered: {reason}.", link=study))
    return found


def title(inputs: ReportInputs) -> str:
    """The title of the page: the table, how good the model is, and how many labels look wrong."""
    parts = [] if inputs.baseline is None else [inputs.baseline.short]
    labels = inputs.studies.get("labels")
    if labels is not None and inputs.dataset.classes and not_run("labels", inputs) is None:
        rows = count(len(inputs.dataset.row_ids))
        parts.append(f"about {_wrong(labels)} of {rows} labels look wrong")
    return f"{inputs.dataset.name}: {'; '.join(parts) or 'what its training rows do to the model'}"


def _wrong(result: StudyResult) -> str:
    """The estimated number of wrong labels."""
    return count(result.metrics["wrong"])


def _labels(question: str, inputs: ReportInputs, result: StudyResult) -> Answer:
    table = result.tables["suspects"].head(LISTED)
    cells = row_cells(inputs, table["row_id"].cast(pl.String).to_list())
    items = [
        Item(name.text, f"{row_words(label, unusual)}; models {judgement(row, label.text, inputs)}")
        for row, (name, label, unusual) in zip(table.to_dicts(), cells, strict=True)
    ]
    if not inputs.dataset.classes:
        words = "These rows have the labels furthest from what models trained without them predict."
        return Answer(question, words, items, link="labels")
    words = (
        f"About {_wrong(result)} of {count(len(inputs.dataset.row_ids))} (95% interval "
        f"{count(result.metrics['wrong_low'])} to {count(result.metrics['wrong_high'])}). "
        f"{counted(int(result.tables['suspects']['cutoff'].sum()), 'row')} should be checked; the most suspicious:"
    )
    note = (
        "A label that looks wrong can be right, because a rare case looks the same: check it by hand. "
        "The interval does not include errors of the models."
    )
    return Answer(question, words, items, note, "labels")


def _values(question: str, inputs: ReportInputs, result: StudyResult) -> Answer:
    values = result.tables["values"].sort("value", descending=True)
    error = values["standard_error"].fill_null(0.0)
    certain = values["value"].abs() > CERTAIN * error
    helping = int((certain & (values["value"] > 0)).sum())
    hurting = int((certain & (values["value"] < 0)).sum())
    unit = signed(inputs)
    words = (
        f"{count(helping)} rows help and {count(hurting)} hurt; the effect of the other "
        f"{count(values.height - helping - hurting)} cannot be told from zero."
    )
    items = [
        *_extremes(inputs, result.tables.get("groups"), "group"),
        *_extremes(inputs, values, "row_id"),
    ]
    note = (
        f"{unit}, on average over random subsets of the other training rows. Values within two standard "
        "errors of zero cannot be told from zero."
    )
    return Answer(question, words, items, note, "valuation")


def _extremes(inputs: ReportInputs, table: pl.DataFrame | None, key: str) -> list[Item]:
    """The rows or groups of the largest and of the smallest value."""
    if table is None or table.is_empty():
        return []
    ordered = table.sort("value", descending=True)
    shown = min(EXTREMES, ordered.height // 2)
    rows = [*ordered.head(shown).to_dicts(), *ordered.tail(shown).reverse().to_dicts()]
    if key == "group":
        return [Item(f"Group {plain(row['group'])}", _value_words(row)) for row in rows]
    cells = row_cells(inputs, [str(row["row_id"]) for row in rows])
    return [
        Item(name.text, f"{_value_words(row)}; {row_words(label, unusual)}")
        for row, (name, label, unusual) in zip(rows, cells, strict=True)
    ]


def _value_words(row: dict[str, Any]) -> str:
    error = row.get("standard_error")
    spread = f" ± {_decimals(error)}" if error else ""
    return f"{'+' if row['value'] > 0 else ''}{number(row['value'], 2)}{spread}"


def _decimals(error: float) -> str:
    """An error with one or two significant digits, without an exponent."""
    return number(error, 2) if error >= FEW else f"{error:.{1 - math.floor(math.log10(error))}f}"


def _removal(question: str, inputs: ReportInputs, result: StudyResult) -> Answer:
    curves = result.tables["curves"].drop_nulls("loss")
    chosen = curves.filter(method="shapley", order="most_valuable").filter(pl.col("share") < 1)
    everything = result.metrics["methods"].get("all_rows")
    if chosen.is_empty() or everything is None:
        return Answer(question, "Not answered: no model without the worst rows converged.")
    nearest = (pl.col("share") - REMOVED).abs()
    fewer = chosen.sort(nearest).row(0, named=True)
    rows = len(inputs.dataset.row_ids)
    words = (
        f"Without the {count(rows - fewer['rows'])} rows with the lowest values "
        f"({percent(1 - fewer['share'], 2)}), the {_loss(inputs)} of the retrained model changes from "
        f"{number(everything['loss'])} to {number(fewer['loss'])}"
        f"{_accuracy_change(everything['accuracy'], fewer['accuracy'])}."
    )
    items: list[Item] = []
    random = curves.filter(method="random").filter(pl.col("share") == fewer["share"])
    if not random.is_empty():
        row = random.row(0, named=True)
        band = f"{number(row['low'])} to {number(row['high'])}"
        items.append(
            Item("Without as many random rows", f"{_loss(inputs)} {number(row['loss'])} ({band})")
        )
    methods = result.metrics["methods"]
    best = methods.get("greedy") or methods.get("shapley")
    if best is not None and best["loss"] is not None:
        share = percent(result.metrics["share"], 2)
        accuracy = "" if best["accuracy"] is None else f", {percent(best['accuracy'])} right"
        items.append(
            Item(f"With the best {share} only", f"{_loss(inputs)} {number(best['loss'])}{accuracy}")
        )
    note = (
        f"Values were computed on {count(result.metrics['validation_rows'])} test rows, and the models were "
        f"scored on {count(result.metrics['test_rows'])} others. With all rows, the 95% interval over "
        f"test rows is {number(everything['low'])} to {number(everything['high'])}."
    )
    return Answer(question, words, items, note, "selection")


def _loss(inputs: ReportInputs) -> str:
    return "test loss" if inputs.dataset.classes else "error on test rows (root mean square)"


def _accuracy_change(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return ""
    return f", and its share of right predictions from {percent(before)} to {percent(after)}"


def _trust_question(inputs: ReportInputs) -> str:
    return (
        "Can I trust the probabilities?" if inputs.dataset.classes else "Can I trust a prediction?"
    )


def _trust(question: str, _: ReportInputs, result: StudyResult) -> Answer:
    bins = result.tables["reliability"].filter(method="full_model")
    items: list[Item] = []
    words = "The predictions vary with the training rows as follows."
    if bins.height:
        weight = bins["count"].to_numpy() / bins["count"].sum()
        said, right = (
            float((bins[name].to_numpy() * weight).sum()) for name in ("confidence", "accuracy")
        )
        tests = int(bins["count"].sum())
        words = _calibration_words(said, right, tests)
        row = result.tables["summary"].filter(method="full_model").row(0, named=True)
        items.append(
            Item(
                "Expected calibration error",
                f"{number(100 * row['ece_width'], 2)} percentage points; a perfectly calibrated model would "
                f"have about {number(100 * row['noise_width'], 2)} on {count(tests)} rows",
            )
        )
    items += _averaging(result) + _width(result)
    return Answer(question, words, items, _coverage(result), "calibration")


def _calibration_words(said: float, right: float, tests: int) -> str:
    """Whether mean confidence and accuracy differ by more than two standard errors."""
    error = math.sqrt(max(right * (1 - right), 1 / tests) / tests)
    numbers = (
        f"the mean probability of the predicted class is {percent(said)}, and the model is right "
        f"{percent(right)} of the time."
    )
    if abs(said - right) <= CERTAIN * error:
        return f"On average, yes: {numbers}"
    how = "confident" if said > right else "cautious"
    gap = number(100 * abs(said - right), 2)
    return f"Not quite. The model is too {how} by {gap} percentage points: {numbers}"


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
