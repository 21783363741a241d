"""OpenML tables come through scikit-learn's fetcher: from a stand-in for its server, then from the cache."""

import hashlib
import http.server
import json
import threading

import polars as pl
import pytest
from sklearn.datasets import _openml as fetcher

from modelpred.dataset import DatasetConfig, prepare
from modelpred.dataset.openml import fetch_openml_table
from modelpred.errors import InvalidInput

ARFF = b"""@RELATION people
@ATTRIBUTE age REAL
@ATTRIBUTE work {office,'on site'}
@ATTRIBUTE rich {no,yes}
@DATA
31,office,no
42,'on site',yes
?,office,yes
57,?,no
"""


class StandIn(http.server.BaseHTTPRequestHandler):
    """RequestHandler what OpenML answers about its table 7, `people`."""

    def do_GET(self):
        """Notes the question and answers it, or says as OpenML does that there is none."""
        self.server.asked.append(self.path)
        answer = self.server.answers.get(self.path)
        self.send_response(200 if answer else 412)
        self.end_headers()
        self.wfile.write(answer or b"{}")

    def log_message(self, *_):
        """Keeps the test's output clean."""


@pytest.fixture
def openml(monkeypatch):
    """A server that knows one table; `asked` lists the paths that it was asked for."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    base = f"http://127.0.0.1:{server.server_port}"
    kinds = {"age": "numeric", "work": "nominal", "rich": "nominal"}
    described = {
        "id": "7", "name": "people", "version": "2", "status": "active", "format": "ARFF",
        "description": "People.", "creator": ["A. Author", "B. Builder"], "licence": "CC0",
        "url": f"{base}/data/7.arff", "md5_checksum": hashlib.md5(ARFF).hexdigest(),
    }  # fmt: skip
    features = [
        {
            "index": str(index), "name": name, "data_type": kind, "is_ignore": "false",
            "is_target": str(name == "rich").lower(), "is_row_identifier": "false",
            "number_of_missing_values": str(int(name != "rich")),
        }
        for index, (name, kind) in enumerate(kinds.items())
    ]  # fmt: skip
    contents = {
        "/json/data/list/data_name/people/limit/2/status/active/": {
            "data": {"dataset": [{"did": 7, "version": 2, "status": "active"}]}
        },
        "/json/data/7": {"data_set_description": described},
        "/json/data/features/7": {"data_features": {"feature": features}},
        "/json/data/qualities/7": {
            "data_qualities": {"quality": [{"name": "NumberOfInstances", "value": "4"}]}
        },
    }
    server.answers = {path: json.dumps(told).encode() for path, told in contents.items()}
    server.answers["/data/7.arff"] = ARFF
    server.asked = []
    for constant in ("_SEARCH_NAME", "_DATA_INFO", "_DATA_FEATURES", "_DATA_QUALITIES"):
        monkeypatch.setattr(
            fetcher, constant, base + getattr(fetcher, constant).partition("api/v1")[2]
        )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("named", ["people", "7"])
def test_a_table_by_name_or_number(openml, tmp_path, named):
    table = fetch_openml_table(named, cache=tmp_path)

    assert table.name == "people-2"
    assert table.label == "rich"
    assert table.rows.to_dict(as_series=False) == {
        "age": [31.0, 42.0, None, 57.0],
        "work": ["office", "on site", "office", None],
        "rich": ["no", "yes", "yes", "no"],
    }
    assert table.rows.schema["work"] == pl.String
    assert all(word in table.attribution for word in ("A. Author, B. Builder", "CC0", "people"))


def test_a_table_is_fetched_once(openml, tmp_path):
    first = fetch_openml_table("people", cache=tmp_path)
    asked = list(openml.asked)
    openml.answers.clear()

    again = fetch_openml_table("people", cache=tmp_path)

    assert again.rows.equals(first.rows)
    assert openml.asked == asked


def test_an_unknown_table_is_told(openml, tmp_path):
    with pytest.raises(InvalidInput, match="openml:nobody cannot be used: No active dataset"):
        fetch_openml_table("nobody", cache=tmp_path)


def test_without_a_connection_one_line_says_what_to_do(monkeypatch, tmp_path):
    def offline(*_: object) -> None:
        raise fetcher.URLError("Temporary failure in name resolution")

    monkeypatch.setattr(fetcher, "urlopen", offline)
    monkeypatch.setattr(fetcher.time, "sleep", lambda _: None)
    with pytest.raises(InvalidInput) as error:
        fetch_openml_table("people", cache=tmp_path)
    assert str(error.value) == (
        "openml:people: OpenML cannot be reached (Temporary failure in name resolution) and the "
        f"table is not in {tmp_path}; connect once, or name a file as dataset.source"
    )


def test_an_openml_table_becomes_points_with_the_label_that_it_declares(
    openml, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    rows = b"".join(
        b"%d,%s,%s\n"
        % (30 + row, (b"office", b"'on site'")[row % 2], (b"no", b"yes")[row % 3 == 0])
        for row in range(40)
    )
    content = ARFF[: ARFF.index(b"@DATA\n") + 6] + rows
    openml.answers["/data/7.arff"] = content
    described = json.loads(openml.answers["/json/data/7"])
    described["data_set_description"]["md5_checksum"] = hashlib.md5(content).hexdigest()
    openml.answers["/json/data/7"] = json.dumps(described).encode()

    dataset = prepare(DatasetConfig(source="openml:people", drop=("age",)))

    assert dataset.name == "people"
    assert dataset.label_name == "rich"
    assert dataset.classes == ("no", "yes")
    assert dataset.feature_names == ("work=on site",)
    assert len(dataset.row_ids) + len(dataset.test_row_ids) == 40
    assert (tmp_path / ".modelpred" / "openml").is_dir()
