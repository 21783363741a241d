"""A result with everything that readers need of a study, and with a column and a metric beside."""

import polars as pl

from modelpred.studies import CONTENTS
from modelpred.studies.results import StudyResult

METHODS = ["predictor", "influence"]
CELLS = {"text": METHODS, "number": [0.5, 2.0], "flag": [True, False]}
VALUES = {"text": "x", "number": 0.5, "section": {"microseconds": 1.0}}


def whole(study: str) -> StudyResult:
    """The result of a study of this name."""
    contents = CONTENTS[study]
    tables = {
        name: pl.DataFrame({each: CELLS[kind] for each, kind in needed.kinds().items()})
        for name, needed in contents.tables.items()
    }
    metrics = {
        name: VALUES[kind]
        for needed in (contents.metrics, contents.optional)
        for name, kind in needed.kinds().items()
    }
    if contents.by_method:
        metrics |= dict.fromkeys(METHODS, VALUES["section"])
    more = {name: table.with_columns(more=pl.lit([1])) for name, table in tables.items()}
    return StudyResult({**metrics, "more": []}, more)
