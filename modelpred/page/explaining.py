"""Explanations of a prediction by the rows that an edit leaves."""

from typing import Any

import polars as pl

from modelpred.errors import InvalidInput
from modelpred.page.answers import plain, records
from modelpred.page.messages import ExplainAsked
from modelpred.page.subject import Subject

LISTED = 20


def explained(subject: Subject, asked: ExplainAsked) -> dict[str, Any]:
    """The rows that matter most for a prediction, and a small set whose removal flips it.

    Raises:
        InvalidInput: no such row, or not one typed row.
    """
    subject.require_own(asked.edit)
    what, row = _row(subject, asked)
    edited = None if asked.edit.empty else subject.model(asked.edit)
    found = subject.mp.explain(row, model=edited)
    flip = found.flip
    return {
        "what": what,
        "predicted": plain(found.predicted),
        "margin": plain(found.margin),
        "how": str(found.engine),
        "rows": records(found.rows.head(LISTED)),
        "flip": flip
        and {
            "removed": list(flip.removed),
            "becomes": None if flip.becomes is None else str(flip.becomes),
            "confirmed": flip.confirmed,
        },
    }


def _row(subject: Subject, asked: ExplainAsked) -> tuple[str, pl.DataFrame]:
    if asked.typed is not None:
        if len(asked.typed.rows) != 1:
            raise InvalidInput(f"expected one row, got {len(asked.typed.rows)}")
        return "The typed row", subject.cells(asked.typed)
    if asked.row not in subject.places:
        raise InvalidInput(f"none of the {subject.on} has the id {asked.row!r}")
    cells = subject.scored_rows[subject.places[asked.row]]
    return f"Row {asked.row}", cells[list(subject.needed_columns)]
