"""CSV in and out: rows that are added, and edits as files.

An edit's file has the columns row_id, weight and new_label, and if it adds rows the columns of the table. A cell that
is empty leaves what it names as it is.
"""

import csv
import io
from typing import Any

from modelpred.errors import InvalidInput
from modelpred.page.messages import Added, Edit
from modelpred.page.subject import Subject

EDIT_COLUMNS = ["row_id", "weight", "new_label"]
DELIMITERS = ",\t;"
ADDED_PREFIX = "new-"


def read_pasted(subject: Subject, text: str, *, labelled: bool) -> dict[str, Any]:
    """Return `rows` to add, or the `edit` of a file that `edit_csv` wrote.

    Raises:
        InvalidInput: no CSV, other columns than the table's, or cells that the fit cannot read.
    """
    table = _records(text, subject)
    header, records = table[0], table[1:]
    if header[:3] == EDIT_COLUMNS:
        return {"edit": _edit(subject, header, records).model_dump()}
    label = subject.label_name
    wanted = [*subject.needed_columns, *([label] if labelled else [])]
    missing = [name for name in wanted if name not in header]
    if missing:
        raise InvalidInput(
            f"the header has no column {missing[0]!r}; 'Insert the header' writes all columns"
        )
    unknown = [name for name in header if name not in (*wanted, *subject.columns, "row_id", label)]
    if unknown:
        raise InvalidInput(f"the table has no column {unknown[0]!r}; remove it")
    places = [header.index(name) for name in subject.needed_columns]
    at = header.index(label) if labelled else -1
    added = Added(
        columns=list(subject.needed_columns),
        rows=[[record[place] for place in places] for record in records],
        labels=[record[at].strip() if labelled else "" for record in records],
    )
    if labelled:
        subject.added(added)
    subject.mp.fitted.reading.features(subject.cells(added), what="the pasted rows")
    return {"rows": added.model_dump()}


def edit_csv(edit: Edit) -> str:
    """The edit as CSV, which `read_pasted` reads back."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    added = edit.added or Added(columns=[], rows=[], labels=[])
    writer.writerow([*EDIT_COLUMNS, *added.columns])
    blank = [""] * len(added.columns)
    added_ids = dict.fromkeys(f"{ADDED_PREFIX}{place}" for place in range(len(added.rows)))
    for row_id in dict.fromkeys([*edit.weights, *edit.labels]):
        if row_id not in added_ids:
            weight = short(edit.weights.get(row_id, ""))
            writer.writerow([row_id, weight, edit.labels.get(row_id, ""), *blank])
    for row_id, cells, label in zip(added_ids, added.rows, added.labels, strict=True):
        writer.writerow([row_id, short(edit.weights.get(row_id, 1.0)), label, *cells])
    return file.getvalue()


def short(value: object) -> object:
    """The value, a whole number without a point."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _edit(subject: Subject, header: list[str], records: list[list[str]]) -> Edit:
    known = set(subject.mp.row_ids)
    weights: dict[str, float] = {}
    labels: dict[str, str] = {}
    rows: list[list[str]] = []
    added_labels: list[str] = []
    for row_id, weight, label, *cells in records:
        number = _weight(row_id, weight)
        if row_id in known:
            if label:
                labels[row_id] = label
        elif len(header) > len(EDIT_COLUMNS):
            row_id = f"{ADDED_PREFIX}{len(rows)}"  # noqa: PLW2901 - added rows get new numbers
            rows.append(cells)
            added_labels.append(label)
        else:
            raise InvalidInput(f"no row has the id {row_id!r}; is this the edit of another table?")
        if number is not None and not (row_id not in known and number == 1):
            weights[row_id] = number
    added = Added(columns=header[3:], rows=rows, labels=added_labels) if rows else None
    edit = Edit(table=subject.dataset.fingerprint, weights=weights, labels=labels, added=added)
    subject.model(edit)  # or says what is wrong
    return edit


def _weight(row_id: str, text: str) -> float | None:
    if not text.strip():
        return None
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not 0 <= weight <= 1e6:
        raise InvalidInput(f"the weight of row {row_id!r} is {text!r}; expected 0 to 1,000,000")
    return weight


def _records(text: str, subject: Subject) -> list[list[str]]:
    """The records of the text, all of one width; the header first."""
    lines = list(io.StringIO(text.strip("\r\n"), newline=""))
    try:
        reader = csv.reader(lines, delimiter=_delimiter(lines, subject), strict=True)
        found = [record for record in reader if record]
    except csv.Error as error:
        raise InvalidInput(f"this is no CSV ({error}); is a quote not closed?") from error
    if len(found) < 2:
        raise InvalidInput("expected a header line and one row or more")
    known = {*subject.columns, subject.label_name}
    found[0] = [name if name in known else name.strip() for name in found[0]]
    for number, record in enumerate(found):
        if len(record) != len(found[0]):
            raise InvalidInput(
                f"line {number + 1} has {len(record)} cells, the header {len(found[0])}"
            )
    return found


def _delimiter(lines: list[str], subject: Subject) -> str:
    """The delimiter with which the header names a column that is expected; a comma if none does."""
    expected = {*subject.needed_columns[:1], subject.label_name, EDIT_COLUMNS[0]}
    for delimiter in DELIMITERS:
        header = next(csv.reader(lines, delimiter=delimiter), [])
        if expected & {name.strip() for name in header}:
            return delimiter
    return DELIMITERS[0]
