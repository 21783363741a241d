"""The server answers what the predictor answers, and refuses all else with a 4xx and one line of JSON."""

import asyncio
import json
import math
import re
import resource
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import polars as pl
import pytest
import torch
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred import connections, serving
from modelpred.predictor import write_predictor
from modelpred.predictor.request_handler import SERVING_LIMITS, RequestHandler, write_test_points
from modelpred.sealed import seal
from modelpred.serving import application, application_of
from tests.predictor.conftest import POINTS, make_case, make_points

ONES = [[1] * POINTS]
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The application and the predictor that it was read from."""
    case = make_case("logistic")
    predictor = case.predictor.for_points(
        case.points, row_ids=tuple(f"row {place}" for place in range(POINTS))
    )
    folder = tmp_path_factory.mktemp("served")
    write_predictor(predictor, folder)
    write_test_points(make_points("logistic", 20, seed=1), folder)
    seal(folder)
    return application_of(folder), predictor


def ask(app, body, headers=JSON, *, path="/invocations", method="POST"):
    """What a request gets, with what holds of every answer checked."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def request():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://served") as client:
            return await client.request(method, path, content=content, headers=headers)

    answer = asyncio.run(request())
    assert answer.status_code < 500, (answer.text[:300], content[:300])
    assert answer.headers["content-type"] == "application/json"
    if answer.status_code != 200:
        told = json.loads(answer.text, parse_constant=pytest.fail)
        assert set(told) == {"error_code", "message"}
        assert told["message"]
        assert len(told["message"]) <= 500
        for leak in ("\n", "Traceback", 'File "', "/tmp", "site-packages", ".py"):
            assert leak not in told["message"]
    elif method == "POST":
        json.loads(answer.text, parse_constant=pytest.fail)
    return answer


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_question_is_answered_as_the_predictor_answers_it(served, data):
    app, predictor = served
    counts = st.integers(0, 3) | st.floats(0.5, 4)
    rows = data.draw(
        st.lists(st.lists(counts, min_size=POINTS, max_size=POINTS), min_size=0, max_size=4)
    )
    rows = [row for row in rows if sum(row) == 0 or sum(row) >= 1]
    refine = data.draw(st.sampled_from([0, 0.5, 1, 2.0]))
    stages = data.draw(st.sampled_from([-1, 0, 1, 2]))
    answer = ask(app, {"inputs": rows, "params": {"refine": refine, "stages": stages}})
    expected = predictor.predict(
        torch.tensor(rows, dtype=torch.float64).reshape(len(rows), POINTS),
        refine=refine,
        stages=None if stages == -1 else stages,
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"] == expected.tolist()


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_rows_that_are_left_out_have_weight_zero(served, data):
    app, predictor = served
    places = st.lists(st.integers(0, POINTS - 1), max_size=6)
    lists = data.draw(st.lists(places, min_size=1, max_size=4))
    named = [[f"row {place}" for place in each] for each in lists]
    answer = ask(app, {"inputs": ONES, "params": {"without": {"rows": named}}})
    weights = torch.ones(len(lists), POINTS, dtype=torch.float64)
    for row, left in enumerate(lists):
        weights[row, left] = 0
    told = answer.json()["predictions"]
    assert [each["parameters"] for each in told] == predictor.predict(weights).tolist()
    assert all(set(each) == {"parameters", "loss", "certificate"} for each in told)


# --- whatever else arrives ---------------------------------------------------------------------

NUMBERS = (
    st.integers()
    | st.floats(allow_nan=True)
    | st.sampled_from([1e308, -0.0, 5e-324, 1e39, 10**400])
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=12,
)
KEYS = ("inputs", "params", "refine", "stages", "without", "rows", "witout", "refnie", "instances")
KNOWN = st.sampled_from(KEYS)
CELLS = st.lists(NUMBERS | st.just(1), min_size=POINTS, max_size=POINTS)


@st.composite
def bodies(draw):
    """Bodies that are nearly questions: a value, a key, a type or some bytes of them changed."""
    body = {
        "inputs": draw(st.just(ONES) | st.lists(CELLS, max_size=2) | VALUES),
        "params": draw(
            st.dictionaries(KNOWN, VALUES | st.fixed_dictionaries({"rows": VALUES}), max_size=3)
            | VALUES
        ),
    }
    if draw(st.booleans()):
        body[draw(KNOWN)] = draw(VALUES)
    content = json.dumps(body).encode()
    match draw(
        st.sampled_from(["as it is", "as it is", "cut", "bytes", "deep", "digits", "twice"])
    ):
        case "cut":
            content = content[: draw(st.integers(0, len(content)))]
        case "bytes":
            place = draw(st.integers(0, len(content)))
            content = content[:place] + draw(st.binary(min_size=1, max_size=4)) + content[place:]
        case "deep":
            opened, closed = draw(st.sampled_from([(b"[", b"]"), (b'{"a":', b"}")]))
            depth = draw(st.sampled_from([10, 500, 5_000, 100_000]))
            content = b'{"inputs": ' + opened * depth + b"1" + closed * depth + b"}"
        case "digits":
            number = b"9" * draw(st.sampled_from([300, 400, 5_000, 100_000]))
            content = content.replace(b"1", number, 1)
        case "twice":
            content = content[:-1] + b', "inputs": []}'
    return content


@given(content=bodies())
@settings(max_examples=400, deadline=None)
def test_any_body_is_answered_with_finite_numbers_or_refused_in_one_line(served, content):
    answer = ask(served[0], content)
    if answer.status_code == 200:
        predictions = answer.json()["predictions"]
        numbers = [
            number
            for each in predictions
            for number in (each["parameters"] if isinstance(each, dict) else each)
        ]
        assert all(math.isfinite(number) for number in numbers)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"inputs": ONES, "params": {"witout": {"rows": [["row 3"]]}}}, "unknown 'witout'"),
        ({"inputs": ONES, "params": {"refnie": 5}}, "unknown 'refnie'; known: refine"),
        ({"inputs": ONES, "parms": {}}, "unknown 'parms'; known: inputs, params"),
        ({"inputs": ONES, "params": {"without": {"row": []}}}, "unknown 'row'; known: rows"),
        ({"inputs": ONES, "params": {"refine": None}}, "refine is null"),
        ({"inputs": ONES, "params": {"refine": 21}}, "refine is 21; at most 20"),
        ({"inputs": ONES, "params": {"stages": 1.5}}, "stages is a number; expected a whole"),
        ({"inputs": ONES, "params": {"stages": True}}, "stages is true; expected a whole"),
        ({"inputs": [["1"] * POINTS]}, "holds the text '1'; expected numbers"),
        ({"inputs": [[True] * POINTS]}, "holds true; expected numbers"),
        ({"inputs": [[1e308] * POINTS]}, "weights go up to 1e\\+308"),
        ({"inputs": [[1]]}, "is a list of 1; expected 40 numbers"),
        ({"inputs": ONES, "params": {"without": {"rows": [[{"a": 1}]]}}}, "no list of texts"),
        ({"inputs": ONES, "params": {"without": {"rows": [["\ud800"]]}}}, "unknown rows"),
        (b'{"inputs": [[NaN]]}', "NaN, which is no JSON"),
        (b'{"inputs": [[1e400' + b", 1" * 39 + b"]]}", "run from 1 to inf"),
        (b"", "is no JSON"),
        (b"\xff", "not in UTF-8"),
    ],
)
def test_the_line_says_what_is_wrong(served, body, told):
    answer = ask(served[0], body)
    assert answer.status_code == 400
    assert re.search(told, answer.json()["message"]), answer.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 415),
        ({"Content-Type": "text/csv"}, 415),
        ({"Content-Type": "application/json; charset=latin-1"}, 415),
        ({"Content-Type": 'application/json; charset="UTF-8"'}, 200),
        ([("Content-Type", "application/json"), ("Content-Type", "text/csv")], 415),
        (JSON | {"Content-Encoding": "gzip"}, 415),
        (JSON | {"Content-Encoding": "identity"}, 200),
        (JSON | {"Content-Length": "99999999999999999999"}, 413),
        (JSON | {"Content-Length": "-1"}, 413),
    ],
)
def test_headers_are_checked_before_the_body(served, headers, status):
    assert ask(served[0], {"inputs": ONES}, headers).status_code == status


def test_parameters_in_the_address_are_not_ignored(served):
    answer = ask(served[0], {"inputs": ONES}, path="/invocations?refine=5")
    assert answer.status_code == 400
    assert "put params in the body" in answer.json()["message"]


def test_other_addresses_and_methods(served):
    assert ask(served[0], b"", path="/ping", method="GET").status_code == 200
    assert ask(served[0], b"", path="/../etc").status_code == 404
    assert ask(served[0], b"", method="GET").status_code == 405


def test_a_body_that_grows_beyond_the_limit_is_not_read_to_its_end(served):
    app = application(RequestHandler(served[1]), largest_body=1000)
    sent = []

    async def chunks():
        for _ in range(100):
            sent.append(1)
            yield b" " * 100

    async def request():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://served") as client:
            return await client.post("/invocations", content=chunks(), headers=JSON)

    assert asyncio.run(request()).status_code == 413
    assert len(sent) < 20


@pytest.mark.parametrize(
    ("after", "status", "told"),
    [("nothing", 408, "did not come within 0.05 s"), ("closed", 400, "was closed before")],
)
def test_a_body_that_does_not_come_is_refused(served, monkeypatch, after, status, told):
    monkeypatch.setattr(serving, "BODY_SECONDS", 0.05)
    parts = iter([{"type": "http.request", "body": b"{", "more_body": True}])
    sent = []

    async def receive():
        if part := next(parts, None):
            return part
        if after == "nothing":
            await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/invocations", "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in JSON.items()],
    }  # fmt: skip
    asyncio.run(served[0](scope, receive, send))
    assert sent[0]["status"] == status
    assert told in json.loads(sent[1]["body"])["message"]


def test_a_question_that_fails_inside_is_answered_without_the_reason(served, monkeypatch, caplog):
    def fail(*_, **__):
        raise KeyError("/a/path/of/the/server")

    monkeypatch.setattr(serving, "_answered", fail)

    async def request():
        transport = httpx.ASGITransport(application(RequestHandler(served[1])))
        async with httpx.AsyncClient(transport=transport, base_url="http://served") as client:
            return await client.post("/invocations", json={"inputs": ONES})

    found = asyncio.run(request())
    assert found.status_code == 500
    assert found.json()["error_code"] == "INTERNAL_ERROR"
    assert "path" not in found.text
    assert "/a/path/of/the/server" in caplog.text


def test_sizes_are_checked_before_anything_is_made(served):
    """Lists by the hundred of weights by the hundred thousand would take gigabytes."""
    answers = RequestHandler(served[1], limits=SERVING_LIMITS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for body in (
        {"inputs": [[1] * 500_000], "params": {"without": {"rows": [["row 0"]] * 300}}},
        {"inputs": [[1]] * 100_000},
        {"inputs": ONES, "params": {"without": {"rows": [[]] * 100_000}}},
    ):
        assert ask(application(answers), body).status_code == 400
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


def test_the_question_in_the_manual_is_answered(served, tmp_path):
    app, predictor = served
    manual = (Path(__file__).parents[1] / "docs" / "operating.md").read_text()
    [question] = re.findall(r"question\.json <<'EOF'\n(.*?)\nEOF\n", manual, re.DOTALL)
    folder = tmp_path / "artifacts" / "dataset"
    folder.mkdir(parents=True)
    pl.DataFrame({"row_id": list(predictor.row_ids)}).write_parquet(folder / "rows.parquet")
    asked = subprocess.run(
        [sys.executable, "-c", question], cwd=tmp_path, capture_output=True, check=True
    )
    answer = ask(app, asked.stdout)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["predictions"]) == 2


def test_a_head_that_does_not_come_ends_its_connection_and_no_other(served, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    body = json.dumps({"inputs": ONES}).encode()
    head = f"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"

    async def sent(port: int, *parts: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.2)
        found = await asyncio.wait_for(reader.read(-1), 20)
        writer.close()
        return found

    async def answers():
        server = uvicorn.Server(
            uvicorn.Config(
                served[0], port=0, log_level="error", http=connections.LimitedHeadProtocol,
                timeout_keep_alive=1,
            )
        )  # fmt: skip
        with socket.create_server(("127.0.0.1", 0)) as listener:
            serving_it = asyncio.create_task(server.serve([listener]))
            port = listener.getsockname()[1]
            whole, rest = head.encode() + b"\r\n", body[1:]
            found = await asyncio.gather(
                sent(port),
                sent(port, head.encode()[:9], head.encode()[9:]),
                sent(port, whole, body[:1], rest[:5], rest[5:]),  # a slow body is no slow head
                sent(port, whole + body, head.encode()),
            )
            server.should_exit = True
            await serving_it
            return found

    nothing, half, slow, second = asyncio.run(answers())
    assert (nothing, half) == (b"", b"")
    assert [part.count(b"200 OK") for part in (slow, second)] == [1, 1]
