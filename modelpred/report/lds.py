"""The section on the linear datamodelling score (LDS)."""

from __future__ import annotations

from modelpred.report.blocks import Block, Cell, Table, Text, columns_of
from modelpred.report.inputs import ReportInputs
from modelpred.report.methods import EXACT_METHODS, in_order, look, predictor_rows
from modelpred.report.words import count, number, number_interval
from modelpred.studies.results import StudyResult

FORMS = {"direct": "Directly", "additive": "As a sum over rows"}


def lds_blocks(_: ReportInputs, result: StudyResult) -> list[Block]:
    """The scores of every method in both forms, with intervals."""
    table = result.tables["lds"]
    methods = in_order(table["method"].unique(maintain_order=True).to_list())
    rows = {(row["method"], row["form"]): row for row in table.iter_rows(named=True)}
    best = {
        form: max(
            row["lds"]
            for (method, kind), row in rows.items()
            if kind == form and method not in EXACT_METHODS
        )
        for form in {kind for _, kind in rows}
    }
    body: list[list[Cell]] = []
    for method in methods:
        cells = [Cell(look(method).label)]
        for form in FORMS:
            row = rows.get((method, form))
            if row is None:  # attributions of other tools have only the additive form
                cells.append(Cell(""))
                continue
            marked = method not in EXACT_METHODS and row["lds"] == best[form]
            cells.append(Cell(number(row["lds"]), number_interval(row["low"], row["high"]), marked))
        body.append(cells)
    first = table.row(0, named=True)
    note = (
        f"Over {count(first['subsets'])} retrained subsets; 95% intervals over "
        f"{count(first['test_rows'])} test rows for these subsets."
    )
    return [
        Text(
            "The linear datamodelling score (LDS) measures how well a method ranks the margins of a "
            "test row over models of random halves of the training rows. It is the rank correlation "
            "(Spearman) of predicted margins with those of retrained models, averaged over test "
            "rows. “Directly”: the margin of the predicted model. “As a sum over rows”: the sum of "
            "the effects of removing single rows, as attribution methods assume. `modelpred lds "
            "FILE` scores the attribution matrix of another tool with the same models."
        ),
        Table(
            "Linear datamodelling score",
            columns_of("Method", *FORMS.values()),
            body,
            note=note,
            highlighted=predictor_rows(methods),
        ),
    ]
