"""LDS: the section on how well margins of single test rows are ranked."""

from __future__ import annotations

from modelpred.report.blocks import Block, Cell, Column, Table, Text, count, number, number_interval
from modelpred.report.inputs import ReportInputs
from modelpred.report.methods import TRUTHS, in_order, is_ours, look
from modelpred.studies.utility import StudyResult

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
            if kind == form and method not in TRUTHS
        )
        for form in {kind for _, kind in rows}
    }
    body: list[list[Cell]] = []
    for method in methods:
        cells = [Cell(look(method).label)]
        for form in FORMS:
            row = rows.get((method, form))
            if row is None:  # an attribution from elsewhere is a sum
                cells.append(Cell(""))
                continue
            marked = method not in TRUTHS and row["lds"] == best[form]
            cells.append(Cell(number(row["lds"]), number_interval(row["low"], row["high"]), marked))
        body.append(cells)
    first = table.row(0, named=True)
    note = (
        f"Over {count(first['subsets'])} retrained subsets; 95% intervals over "
        f"{count(first['test_rows'])} test rows, which take the subsets as given."
    )
    return [
        Text(
            "Half of the rows are drawn again and again, and a model is retrained on each half. For "
            "each test row its margins under these models are ranked and compared with the predicted "
            "ranking (Spearman); the mean over test rows is the linear datamodelling score. "
            "“Directly” is the margin of the predicted model; “as a sum over rows” adds up the "
            "method's own effect of leaving out each row alone, the form that attribution methods "
            "have. `modelpred lds FILE` scores a matrix of another tool by the same models."
        ),
        Table(
            "Linear datamodelling score",
            [Column("Method", numeric=False), *(Column(title) for title in FORMS.values())],
            body,
            note=note,
            ours=frozenset(index for index, method in enumerate(methods) if is_ours(method)),
        ),
    ]
