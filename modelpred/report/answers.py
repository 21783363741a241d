"""The first screen of the report: four questions about the data, answered in words and numbers.

    Which labels look wrong?               the study `labels`
    Which rows help, and which hurt?       the study `valuation`
    What happens without the worst rows?   the study `selection`
    Can I trust the probabilities?         the study `calibration`

A study that was not run gives an answer that says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import polars as pl

from modelpred.report.answer import Answer, Item
from modelpred.report.inputs import ReportInputs
from modelpred.report.probabilities import trust, trust_question
from modelpred.report.studies import not_run
from modelpred.report.suspects import judgement, suggestion
from modelpred.report.valuation import row_cells, row_words, signed, value_cell
from modelpred.report.words import count, number, percent, plain
from modelpred.studies.results import StudyResult
from modelpred.wording import WRONG_NUMBER, counted

LISTED = 5  # most suspicious rows
EXTREMES = 3  # rows that help most, and rows that hurt most
NAMED = 2  # of each of these on a terminal
REMOVED = 0.95  # share of rows that is left when the worst go
CERTAIN = 2.0  # standard errors from zero


def answers(inputs: ReportInputs) -> list[Answer]:
    """The answers to all questions, in the order of the page."""
    asked: tuple[tuple[str, str, str, Callable[[str, ReportInputs, StudyResult], Answer]], ...] = (
        ("Which labels look wrong?", "wrong labels", "labels", _labels),
        ("Which rows help, and which hurt?", "values of rows", "valuation", _values),
        ("What happens without the worst rows?", "worst rows", "selection", _removal),
        (*trust_question(inputs), "calibration", trust),
    )
    found: list[Answer] = []
    for question, topic, study, answer in asked:
        reason = not_run(study, inputs)
        if reason is None:
            given = answer(question, inputs, inputs.studies[study])
        else:
            given = Answer(question, f"Not answered: {reason}.", link=study)
        brief = given.brief or (given.words,)
        found.append(replace(given, topic=topic, brief=brief))
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
    named = ", ".join(
        f"row {row['row_id']} ({suggestion(row, label.text, inputs)})"
        for row, (_, label, _) in zip(table.to_dicts()[:NAMED], cells, strict=False)
    )
    if not inputs.dataset.classes:
        words = "These rows have the labels furthest from what models trained without them predict."
        brief = ("furthest from what models trained without the row predict:", named)
        return Answer(question, words, brief=brief, items=items, link="labels")
    number_wrong = (
        f"{_wrong(result)} of {count(len(inputs.dataset.row_ids))} (95% interval "
        f"{count(result.metrics['wrong_low'])} to {count(result.metrics['wrong_high'])})"
    )
    inspected = int(result.tables["suspects"]["cutoff"].sum())
    checked = f"{counted(inspected, 'row')} should be checked"
    listed = "such as" if inspected else "the most suspicious:"
    words = f"About {number_wrong}. {checked}; the most suspicious:"
    note = (
        "A label that looks wrong can be right, because a rare case looks the same: check it by hand. "
        f"The interval does not include errors of the models. {WRONG_NUMBER}."
    )
    brief = (f"about {number_wrong}; {checked}, {listed}", named)
    return Answer(question, words, brief=brief, items=items, note=note, link="labels")


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
    groups = result.tables.get("groups")
    items = [*_extremes(inputs, groups, "group"), *_extremes(inputs, values, "row_id")]
    brief = (words.removesuffix("."), _named(values if groups is None else groups))
    note = (
        f"{unit}, on average over random subsets of the other training rows. Values within two standard "
        "errors of zero cannot be told from zero."
    )
    return Answer(question, words, brief=brief, items=items, note=note, link="valuation")


def _named(table: pl.DataFrame) -> str:
    """The names and values of the rows or groups that help and hurt most."""
    key = "group" if "group" in table.columns else "row_id"
    sides = zip(("most", "least"), _ends(table, NAMED), strict=True)
    return "; ".join(
        f"{side}: "
        + ", ".join(
            f"{key.removesuffix('_id')} {plain(row[key])} {_signed_number(row['value'])}"
            for row in rows
        )
        for side, rows in sides
        if rows
    )


def _ends(table: pl.DataFrame, most: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of the largest values, and those of the smallest; the outermost first."""
    ordered = table.sort("value", descending=True)
    shown = min(most, ordered.height // 2)
    return ordered.head(shown).to_dicts(), ordered.tail(shown).reverse().to_dicts()


def _extremes(inputs: ReportInputs, table: pl.DataFrame | None, key: str) -> list[Item]:
    """The rows or groups of the largest and of the smallest value."""
    if table is None or table.is_empty():
        return []
    rows = [row for end in _ends(table, EXTREMES) for row in end]
    if key == "group":
        return [Item(f"Group {plain(row['group'])}", _value_words(row)) for row in rows]
    cells = row_cells(inputs, [str(row["row_id"]) for row in rows])
    return [
        Item(name.text, f"{_value_words(row)}; {row_words(label, unusual)}")
        for row, (name, label, unusual) in zip(rows, cells, strict=True)
    ]


def _value_words(row: dict[str, Any]) -> str:
    cell = value_cell(row["value"], row.get("standard_error"))
    return f"{'+' if row['value'] > 0 else ''}{cell.text}" + (f" {cell.note}" if cell.note else "")


def _signed_number(value: float) -> str:
    return f"{'+' if value > 0 else ''}{number(value, 2)}"


def _removal(question: str, inputs: ReportInputs, result: StudyResult) -> Answer:
    curves = result.tables["curves"].drop_nulls("loss")
    chosen = curves.filter(method="shapley", order="most_valuable").filter(pl.col("share") < 1)
    everything = result.metrics["methods"].get("all_rows")
    if chosen.is_empty() or everything is None:
        return Answer(question, "Not answered: no model without the worst rows converged.")
    nearest = (pl.col("share") - REMOVED).abs()
    fewer = chosen.sort(nearest).row(0, named=True)
    rows = len(inputs.dataset.row_ids)
    removed = f"{count(rows - fewer['rows'])} rows"
    share = percent(1 - fewer["share"], 2)
    losses = f"from {number(everything['loss'])} to {number(fewer['loss'])}"
    words = (
        f"Without the {removed} with the lowest values ({share}), the {_loss(inputs)} of the retrained "
        f"model changes {losses}{_accuracy_change(everything['accuracy'], fewer['accuracy'])}."
    )
    tested = counted(result.metrics["test_rows"], "test row")  # not all: others gave the values
    brief = (
        f"without the {removed} of least value, on {tested}: "
        f"{_loss(inputs).removeprefix('test ')} {losses}"
    )
    if everything["accuracy"] is not None and fewer["accuracy"] is not None:
        brief += f", right {percent(everything['accuracy'])} to {percent(fewer['accuracy'])}"
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
        kept = percent(result.metrics["share"], 2)
        accuracy = "" if best["accuracy"] is None else f", {percent(best['accuracy'])} right"
        items.append(
            Item(f"With the best {kept} only", f"{_loss(inputs)} {number(best['loss'])}{accuracy}")
        )
    note = (
        f"Values were computed on {count(result.metrics['validation_rows'])} test rows, and the models were "
        f"scored on {count(result.metrics['test_rows'])} others. The loss depends on which test rows these "
        f"are: with all rows its 95% interval is {number(everything['low'])} to {number(everything['high'])}."
    )
    return Answer(question, words, brief=(brief,), items=items, note=note, link="selection")


def _loss(inputs: ReportInputs) -> str:
    return "test loss" if inputs.dataset.classes else "error on test rows (root mean square)"


def _accuracy_change(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return ""
    return f", and its share of right predictions from {percent(before)} to {percent(after)}"
