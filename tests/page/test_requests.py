"""Requests that the page sends are answered as ModelPred answers; all others get a 4xx and one line."""

import asyncio
import io
import json
import resource
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.page.answers import answer
from modelpred.page.app import application
from modelpred.page.messages import MOST_ADDED, Added, Edit, ExportAsked
from modelpred.page.pasted import edit_csv, read_pasted
from modelpred.page.subject import Subject
from tests.page.conftest import ROWS, made_table

HOST = "http://127.0.0.1:5002"
JSON = {"content-type": "application/json"}
POSTED = ("answer", "bound", "retrain", "explain", "paste", "export")


@pytest.fixture(scope="module")
def subject(mp):
    return Subject(mp, "people")


@pytest.fixture(scope="module")
def app(subject):
    return application(subject)


def ask(app, path, body=None, *, headers=JSON, method=None, base=HOST):
    """The response to one request, with what holds of every response checked."""
    content = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()

    async def request():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            verb = method or ("GET" if body is None else "POST")
            return await client.request(verb, path, content=content, headers=headers)

    found = asyncio.run(request())
    assert found.status_code < 500, (found.text[:300], str(body)[:300])
    assert found.headers["content-security-policy"].startswith("default-src 'none'")
    assert found.headers["x-content-type-options"] == "nosniff"
    if found.status_code >= 400:
        said = found.json()["message"]
        assert 0 < len(said) <= 500
        for leak in ("\n", "Traceback", 'File "', "site-packages", ".py"):
            assert leak not in said
    return found


def edit_of(subject, **parts):
    return {"table": subject.dataset.fingerprint, **parts}


IDS = [f"p{row}" for row in range(ROWS)]
EDITS = st.fixed_dictionaries(
    {
        "weights": st.dictionaries(
            st.sampled_from(IDS), st.integers(0, 4) | st.floats(0, 4), max_size=8
        ),
        "labels": st.dictionaries(
            st.sampled_from(IDS), st.sampled_from(["rich", "poor"]), max_size=5
        ),
        "rows": st.lists(
            st.tuples(
                st.floats(-50, 50).map(str),
                st.sampled_from(["office", "<b>field</b>", 'a,"b"', "never seen", ""]),
                st.integers(18, 80).map(str) | st.just(""),
                st.floats(-2, 2).map(str),
                st.sampled_from(["rich", "poor"]),
            ),
            max_size=3,
        ),
    }
)


def message(subject, drawn):
    """A drawn edit as the page sends it."""
    added = None
    if drawn["rows"]:
        added = {
            "columns": ["size", "work", "age", "noise"],
            "rows": [list(row[:4]) for row in drawn["rows"]],
            "labels": [row[4] for row in drawn["rows"]],
        }
    return edit_of(subject, weights=drawn["weights"], labels=drawn["labels"], added=added)


@settings(max_examples=15, deadline=None)
@given(drawn=EDITS)
def test_an_answer_has_the_numbers_of_modelpred(mp, app, subject, drawn):
    edit = message(subject, drawn)
    found = ask(app, "/api/answer", {"edit": edit}).json()
    added = None
    if drawn["rows"]:
        cells = pl.DataFrame(
            [row[:4] for row in drawn["rows"]],
            schema=["size", "work", "age", "noise"],
            orient="row",
        )
        added = cells, [row[4] for row in drawn["rows"]]
    model = mp.edit(weights=drawn["weights"], labels=drawn["labels"], added=added)
    compared = model.compare()
    scores = {score["name"]: score for score in found["scores"]}
    assert scores["Log loss"]["after"] == pytest.approx(compared.loss_after, rel=1e-12)
    assert scores["Accuracy"]["before"] == compared.accuracy_before
    assert found["flips"]["count"] == compared.flips.height
    assert [row["row"] for row in found["flips"]["rows"]] == compared.flips["row"].to_list()[:100]
    own = model.coefficients()
    own = dict(zip(own["column"], own["after"], strict=True))
    for row in found["coefficients"]["rows"]:
        assert row["after"] == own[row["column"]]
    moved = [abs(row["after"] - row["before"]) for row in found["coefficients"]["rows"]]
    assert moved == sorted(moved, reverse=True)
    for side in found["calibration"].values():
        assert sum(row["count"] for row in side) == compared.rows


@settings(max_examples=15, deadline=None)
@given(drawn=EDITS)
def test_a_downloaded_edit_is_the_same_edit_when_pasted(subject, drawn):
    edit = Edit.model_validate(message(subject, drawn))
    again = read_pasted(subject, edit_csv(edit), labelled=True) if not edit.empty else None
    if again is None:
        return
    back = Edit.model_validate(again["edit"])
    assert back.weights == edit.weights
    assert back.labels == edit.labels
    assert (back.added and back.added.rows) == (edit.added and edit.added.rows)


def test_predicted_answers_have_a_bound_that_holds(mp):
    predicted = Subject(mp, "people", engine="predicted")
    served = application(predicted)
    edit = edit_of(predicted, weights={"p3": 0, "p4": 3})
    found = ask(served, "/api/answer", {"edit": edit}).json()
    assert not found["retrained"]
    assert found["can_bound"]
    assert found["certificate"] is None
    bound = ask(served, "/api/bound", {"edit": edit}).json()["certificate"]
    exact = mp.edit(weights={"p3": 0, "p4": 3}, engine="exact").parameters
    near = mp.edit(weights={"p3": 0, "p4": 3}, engine="predicted").parameters
    assert np.linalg.norm(near - exact) <= bound + 1e-5  # training stops within its tolerance
    assert ask(served, "/api/retrain", {"edit": edit}).json()["retrained"]


def test_columns_hold_the_tables_cells(app):
    rows, _ = made_table(ROWS, 0)
    size = ask(app, "/api/columns/0")
    assert np.array_equal(np.frombuffer(size.content, "<f8"), rows["size"].to_numpy())
    work = ask(app, "/api/columns/1").json()
    assert [work["texts"][code] for code in work["codes"]] == rows["work"].to_list()
    age = np.frombuffer(ask(app, "/api/columns/2").content, "<f8")
    assert [None if np.isnan(cell) else int(cell) for cell in age] == rows["age"].to_list()
    assert ask(app, "/api/columns/4").status_code == 400
    assert ask(app, "/api/columns/x").status_code == 422


@pytest.mark.parametrize(
    ("path", "headers", "base", "status"),
    [
        ("/", {}, "http://evil.example", 403),
        ("/", {}, "http://127.0.0.1.evil.example", 403),
        ("/", {"host": "evil.example:5002"}, HOST, 403),
        ("/", {"host": "["}, HOST, 403),
        ("/", {"origin": "http://evil.example"}, HOST, 403),
        ("/", {"origin": "null"}, HOST, 403),
        ("/api/table", {"sec-fetch-site": "cross-site"}, HOST, 403),
        ("/api/table", {"sec-fetch-site": "same-site"}, HOST, 403),
        ("/", {"sec-fetch-site": "cross-site"}, HOST, 200),
        ("/", {}, "http://localhost:5002", 200),
        ("/", {}, "http://[::1]:5002", 200),
        ("/static/main.js", {"origin": "http://127.0.0.1:5002"}, HOST, 200),
        ("/static/..%2fapp.py", {}, HOST, 404),
        ("/static/../app.py", {}, HOST, 404),
        ("/static//etc/passwd", {}, HOST, 404),
        ("/docs", {}, HOST, 404),
        ("/openapi.json", {}, HOST, 404),
        ("/api/scores/..", {}, HOST, 404),
        ("/api/scores/x", {}, HOST, 400),
    ],
)
def test_only_the_page_itself_is_answered(app, path, headers, base, status):
    assert ask(app, path, headers=headers, base=base).status_code == status


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_must_be_json(app, subject, kind):
    body = {"edit": edit_of(subject)}
    assert ask(app, "/api/answer", body, headers={"content-type": kind}).status_code == 415


CASES = {
    "another table": ({"table": "x"}, 400, "another table"),
    "an unknown id": ({"weights": {"q": 0}}, 400, "no row has the id 'q'"),
    "an unknown class": ({"labels": {"p1": "x"}}, 400, "no class of the fit"),
    "a negative weight": ({"weights": {"p1": -1}}, 422, "greater than or equal to 0"),
    "a weight of text": ({"weights": {"p1": "2"}}, 422, "valid number"),
    "an unknown key": ({"wieghts": {}}, 422, "Extra inputs"),
    "a short row": (
        {"added": {"columns": ["size"], "rows": [[]], "labels": ["rich"]}},
        400,
        "row 1 has 0 cells",
    ),
    "too few columns": (
        {"added": {"columns": ["size"], "rows": [["1"]], "labels": ["rich"]}},
        400,
        "no column 'work'",
    ),
    "words for a number": (
        {
            "added": {
                "columns": ["size", "work", "age", "noise"],
                "rows": [["big", "office", "3", "1"]],
                "labels": ["rich"],
            }
        },
        400,
        "expected a number",
    ),
    "labels that lack": (
        {"added": {"columns": ["size"], "rows": [["1"]], "labels": []}},
        400,
        "0 labels for 1",
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("route", ["answer", "bound", "retrain", "export", "explain"])
def test_edits_that_cannot_be_made_are_refused_in_words(app, subject, case, route):
    parts, status, words = CASES[case]
    body = {"edit": edit_of(subject) | parts}
    body |= {"form": "json"} if route == "export" else {}
    body |= {"row": "test-1"} if route == "explain" else {}
    found = ask(app, f"/api/{route}", body)
    assert found.status_code == status
    assert words in found.json()["message"]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(drawn=st.tuples(st.sampled_from(POSTED), JUNK, st.binary(max_size=40), st.integers(0, 3)))
def test_malformed_bodies_get_a_reason(app, subject, drawn):
    route, junk, raw, way = drawn
    own = {"edit": edit_of(subject), "row": "test-1", "form": "csv", "csv": "x"}
    bodies = [raw, junk, {**own, "edit": junk}, {"edit": edit_of(subject, weights=junk)}]
    ask(app, f"/api/{route}", bodies[way])


@pytest.mark.parametrize("route", POSTED)
def test_deep_and_large_bodies_are_refused(app, route):
    assert ask(app, f"/api/{route}", b"[" * 100_000).status_code == 400
    assert ask(app, f"/api/{route}", b'{"edit": ' + b"9" * 10_000 + b"}").status_code == 400
    million = b'{"edit": {"table": "x", "weights": {' + b'"a row": 0, ' * 1_000_000 + b"}}}"
    found = ask(app, f"/api/{route}", million)
    assert found.status_code == 413
    assert "larger than" in found.json()["message"]


def test_a_body_without_a_length_is_not_read_beyond_the_limit(app):
    async def endless():
        for _ in range(10_000):
            yield b" " * 10_000

    async def request():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=HOST) as client:
            return await client.post("/api/answer", content=endless(), headers=JSON)

    assert asyncio.run(request()).status_code == 413


@given(
    st.sampled_from(POSTED),
    st.lists(st.binary(min_size=1, max_size=20), max_size=3),
    st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_a_body_that_does_not_come_is_not_waited_for(app, route, parts, ends):
    async def slow():
        for part in parts:
            yield part
        if not ends:
            await asyncio.sleep(60)

    async def request():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=HOST) as client:
            return await client.post(f"/api/{route}", content=slow(), headers=JSON)

    with pytest.MonkeyPatch.context() as changed:
        changed.setattr("modelpred.page.guard.BODY_SECONDS", 0.1)
        found = asyncio.run(asyncio.wait_for(request(), 30))
    assert (found.status_code == 408) != ends
    assert found.json()["message"]


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_many_requests_are_answered_in_bounded_memory(served, subject, count):
    body = {"edit": edit_of(subject, weights={"p1": 0})}
    expected = None

    def one(client, at):
        found = client.post("/api/answer", json={"edit": edit_of(subject, weights={"p1": at % 3})})
        assert found.status_code == 200
        return found.json()

    with httpx.Client(base_url=served, timeout=120) as client:
        expected = client.post("/api/answer", json=body).json()
        for at in range(20):
            one(client, at)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for at in range(count):
            one(client, at) if at % 10 == 0 else client.get("/api/columns/1")
        with ThreadPoolExecutor(32) as pool:
            found = list(pool.map(lambda at: one(client, at), range(32)))
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert found[0] == found[3] == expected
    assert grown < 60  # MB; a leak of each answer's tables would be more


@pytest.mark.parametrize("form", ["json", "csv", "python", "sklearn"])
def test_exports_hold_the_model(mp, app, subject, form, tmp_path):
    edit = edit_of(subject, weights={"p3": 0, "p4": 2}, labels={"p5": "rich"})
    found = ask(app, "/api/export", {"edit": edit, "form": form}).json()
    model = mp.edit(weights={"p3": 0, "p4": 2}, labels={"p5": "rich"})
    table, _ = made_table(40, 7)
    if form == "json":
        content = json.loads(found["text"])
        assert content["scaled_parameters"] == model.parameters.tolist()
        assert {row["column"]: row["after"] for row in content["coefficients"]} == dict(
            zip(model.coefficients()["column"], model.coefficients()["after"], strict=True)
        )
    elif form == "csv":
        assert pl.read_csv(io.StringIO(found["text"])).rows() == [
            ("p3", 0, None), ("p4", 2, None), ("p5", None, "rich"),
        ]  # fmt: skip
    elif form == "python":
        names = {"mp": mp, "print": lambda *_: None}
        exec(found["text"], names)
        assert np.array_equal(names["model"].parameters, model.parameters)
    else:
        assert "pickle" not in found["text"]
        names = {}
        exec(found["text"], names)
        encoded = mp.fitted.reading.cells(table, what="X").numpy()
        frame = pl.DataFrame(encoded, schema=names["columns"]).to_pandas()
        assert np.array_equal(names["model"].predict(frame), model.predict(table))
        # The same sums of float64 in another order.
        assert np.allclose(
            names["model"].predict_proba(frame), model.predict_proba(table), atol=1e-9
        )


def test_added_rows_come_from_pasted_csv(mp, app, subject):
    text = 'label,age,size,work,noise\nrich,,41.5,"a,""b""",0.1\npoor,30,12,office,-1\n'
    rows = ask(app, "/api/paste", {"csv": text}).json()["rows"]
    assert rows == {
        "columns": ["size", "work", "age", "noise"],
        "rows": [["41.5", 'a,"b"', "", "0.1"], ["12", "office", "30", "-1"]],
        "labels": ["rich", "poor"],
    }
    found = ask(app, "/api/answer", {"edit": edit_of(subject, added=rows)}).json()
    table = pl.DataFrame(
        {"size": [41.5, 12.0], "work": ['a,"b"', "office"], "age": [None, 30], "noise": [0.1, -1]}
    )
    expected = mp.edit(added=(table, ["rich", "poor"])).compare()
    assert found["scores"][1]["after"] == pytest.approx(expected.loss_after, rel=1e-12)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_quoted_cells_may_have_any_delimiter(app, delimiter):
    lines = [["label", "age", "size", "work", "noise"], ["rich", "30", "12", "office", "-1"]]
    text = "\n".join(delimiter.join(f'"{cell}"' for cell in line) for line in lines)
    rows = ask(app, "/api/paste", {"csv": text}).json()["rows"]
    assert rows["rows"] == [["12", "office", "30", "-1"]]


def test_more_rows_than_an_edit_may_add_are_refused_in_words(app):
    text = "label,age,size,work,noise\n" + "rich,1,2,office,3\n" * (MOST_ADDED + 1)
    found = ask(app, "/api/paste", {"csv": text})
    assert found.status_code == 422
    assert f"rows: List should have at most {MOST_ADDED} items" in found.json()["message"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a header line and one row"),
        ("label,age,size,work,noise", "a header line and one row"),
        ("label,age,size,work\nrich,1,2,office", "no column 'noise'"),
        ("label,age,size,work,noise,x\nrich,1,2,office,3,4", "no column 'x'"),
        ("label,age,size,work,noise\nrich,1,2,office", "line 2 has 4 cells"),
        ('label,age,size,work,noise\nrich,1,2,"office,3', "a quote not closed"),
        ("label,age,size,work,noise\nrich,old,2,office,3", "expected a number"),
        ("label,age,size,work,noise\nking,1,2,office,3", "no class of the fit"),
        ("row_id,weight,new_label\nq,0,", "no row has the id 'q'"),
        ("row_id,weight,new_label\np1,-3,", "the weight of row 'p1' is '-3'"),
        ("row_id,weight,new_label\np1,,king", "no class of the fit"),
    ],
)
def test_csv_that_cannot_be_used_is_refused_in_words(app, text, words):
    found = ask(app, "/api/paste", {"csv": text})
    assert found.status_code == 400
    assert words in found.json()["message"]


def test_a_prediction_is_explained_by_the_rows_that_the_edit_leaves(mp, app, subject):
    plain = ask(app, "/api/explain", {"edit": edit_of(subject), "row": "test-2"}).json()
    table, _ = made_table(60, 1)
    expected = mp.explain(table[2])
    assert plain["flip"]["removed"] == list(expected.flip.removed)
    removed = plain["rows"][0]["row_id"]
    edit = edit_of(subject, weights={removed: 0, plain["rows"][1]["row_id"]: 2})
    edited = ask(app, "/api/explain", {"edit": edit, "row": "test-2"}).json()
    assert removed not in {row["row_id"] for row in edited["rows"]}
    assert edited["margin"] == pytest.approx(plain["margin"], rel=0.5)
    assert edited["margin"] != plain["margin"]
    both = dict.fromkeys(edited["flip"]["removed"], 0)
    after = answer(subject, Edit(table=edit["table"], weights=edit["weights"] | both))
    if edited["flip"]["confirmed"]:
        flipped = {row["row"]: row["after"] for row in after["flips"]["rows"]}
        assert flipped["test-2"] == edited["flip"]["becomes"]


def test_limits_of_messages(subject):
    rows = [["1"]] * (MOST_ADDED + 1)
    with pytest.raises(ValueError, match="at most"):
        Added(columns=["a"], rows=rows, labels=["x"])
    with pytest.raises(ValueError, match="Input should be"):
        ExportAsked.model_validate({"edit": edit_of(subject), "form": "pickle"})
