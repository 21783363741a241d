"""A page of any table that can be fitted answers every request, whatever its names, cells, ids and classes are."""

import datetime as dt
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred import ModelPred
from modelpred.errors import InvalidInput
from modelpred.page.app import application
from modelpred.page.subject import Subject
from tests.page.test_requests import ask

ROWS = 24
WORDS = [
    *(
        "__proto__",
        "constructor",
        "toString",
        "😀",
        "שלום",
        "\u202eabc",
        "a\nb",
        "a\0b",
        "<b>x</b>",
        "$5_",
    ),
    *(
        "^x$",
        "*",
        "count",
        "len",
        " ",
        "label",
        "weight",
        "new_label",
        "a,b",
        'a"b',
        "None ",
        "x" * 3000,
    ),
]
SURROGATE = "\ud800"
CELLS = {
    "numbers": lambda row, _: row * 1.7 % 5,
    "words": lambda row, word: [word, "b", "c"][row % 3],
    "decimals": lambda row, _: Decimal(row) / 4,
    "days": lambda row, _: dt.date(2020, 1, 1) + dt.timedelta(row * 37),
    "moments": lambda row, _: dt.datetime(2020, 1, 1) + dt.timedelta(hours=row * 37),  # noqa: DTZ001 - without a zone
    "NumPy": lambda row, _: np.float32(row * 1.7 % 5),
    "gaps": lambda row, _: pd.NA if row % 5 == 0 else row * 7 % 11,
    "bytes": lambda row, _: bytes([row]),
    "truths": lambda row, _: row % 3 == 0,
    "objects": lambda row, _: [pd.Interval(row, row + 1), object()][row % 2],
}
IDS = {
    "whole": lambda row, _: 100 + row,
    "halves": lambda row, _: row + 0.5,
    "days": lambda row, _: dt.date(2020, 1, 1) + dt.timedelta(row),
    "words": lambda row, word: f"{word}{row}",
    "NumPy": lambda row, _: np.int64(row * 3),
    "tuples": lambda row, _: (row, "a"),
    "half a letter": lambda row, _: f"{SURROGATE}{row}",
}


def made(name, cells, word):
    """A table of one column of numbers and one of that name and kind; in pandas where it can hold it."""
    column = [CELLS[cells](row, word) for row in range(ROWS)]
    numbers = np.random.default_rng(0).normal(size=ROWS)
    if cells == "objects":
        return pl.DataFrame({"first": numbers, name: pl.Series(column, dtype=pl.Object)})
    return pd.DataFrame({"first": numbers, name: column})


@given(
    st.sampled_from(WORDS),
    st.sampled_from(sorted(CELLS)),
    st.sampled_from(sorted(IDS)),
    st.sampled_from(WORDS),
    st.sampled_from([*WORDS, SURROGATE]),
)
@settings(max_examples=15, deadline=None)
def test_every_request_is_answered_or_the_table_is_refused(name, cells, ids, word, label):
    table = made(name, cells, word)
    labels = [[label, "other"][row % 2] for row in range(ROWS)]
    named = [IDS[ids](row, word) for row in range(ROWS)]
    mp = ModelPred("logistic", subsets=40, progress=False)
    try:
        mp.fit(table, labels, ids=named)
        refused = ""
    except InvalidInput as error:
        refused = str(error)
    if refused:
        odd = cells in ("bytes", "objects") or SURROGATE in (
            label,
            *(str(each)[0] for each in named),
        )
        assert odd or label.strip() in {"", "None"} or len(word) > 1000  # labels that are missing
        assert "\n" not in refused
        return
    subject = Subject(mp, name)
    app = application(subject)
    shown = ask(app, "/api/table").json()
    assert [column["name"] for column in shown["columns"]] == ["first", name]
    assert all(ask(app, f"/api/columns/{place}").status_code == 200 for place in range(2))
    first = [str(subject.rows[column][0]) for column in shown["needed"]]
    added = {"columns": shown["needed"], "rows": [first], "labels": [shown["classes"][0]]}
    edit = {
        "table": shown["table"],
        "weights": {shown["ids"][0]: 0.0, shown["ids"][1]: 2.5},
        "labels": {shown["ids"][2]: shown["classes"][1]},
        "added": added,
    }
    assert ask(app, "/api/answer", {"edit": edit}).status_code == 200
    assert (
        ask(app, "/api/explain", {"edit": edit, "row": shown["scored"]["ids"][0]}).status_code
        == 200
    )
    forms = ("python", "csv", "json", "sklearn")
    found = [ask(app, "/api/export", {"edit": edit, "form": form}) for form in forms]
    assert [each.status_code for each in found] == [200] * 4
    pasted = ask(app, "/api/paste", {"csv": found[1].json()["text"], "labelled": True})
    assert pasted.status_code == 200, pasted.text
    assert pasted.json()["edit"]["weights"] == edit["weights"]


@pytest.mark.parametrize(
    "make", [list, np.array, pd.Series, pl.Series], ids=["list", "NumPy", "pandas", "polars"]
)
def test_large_whole_numbers_are_numbers_to_predict_from_every_container(make):
    labels = make([2**53 + 977 * row for row in range(ROWS)])
    table = pl.DataFrame({"x": np.random.default_rng(0).normal(size=ROWS)})
    assert ModelPred(progress=False).fit(table, labels).model.name == "ridge"
