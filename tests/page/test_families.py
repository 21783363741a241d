"""Every family, tables with and without test rows, and estimators with their own preprocessing have a page."""

import numpy as np
import polars as pl
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from modelpred import ModelPred
from modelpred.page.app import application
from modelpred.page.subject import Subject
from tests.page.conftest import made_table
from tests.page.test_requests import ask

ROWS, TEST = 50, 20


def fit(target, labels_of, *, tested=True, **options):
    rows, classes = made_table(ROWS, 0)
    test_rows, test_classes = made_table(TEST, 1)
    test = (test_rows, labels_of(test_rows, test_classes)) if tested else None
    return ModelPred(target, progress=False, **options).fit(
        rows, labels_of(rows, classes), test=test
    )


def classes(_, labels):
    return labels


def three(rows, _):
    return np.digitize(rows["size"], [35, 45])


def numbers(rows, _):
    return 2 * rows["size"].to_numpy() + rows["noise"].to_numpy()


def truths(_, labels):
    return labels == "rich"


def pipeline():
    """An estimator of a pandas frame, whose preprocessing makes other columns than the table has."""
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["size", "age", "noise"]),
        (OneHotEncoder(handle_unknown="ignore"), ["work"]),
    )
    rows, labels = made_table(ROWS, 0)
    test_rows, test_labels = made_table(TEST, 1)
    estimator = ModelPred(make_pipeline(columns, LogisticRegression()), progress=False)
    return estimator.fit(rows.to_pandas(), labels, test=(test_rows.to_pandas(), test_labels))


CASES = {
    "logistic": lambda: fit("logistic", truths),
    "softmax": lambda: fit("softmax", three),
    "softmax of two": lambda: fit("softmax", classes),
    "svm without test rows": lambda: fit("svm", truths, tested=False),
    "ridge": lambda: fit("ridge", numbers),
    "ridge_classifier": lambda: fit("ridge_classifier", classes),
    "mlp": lambda: fit("mlp", classes, hidden=3),
    "pipeline": pipeline,
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    mp = CASES[request.param]()
    subject = Subject(mp, request.param)
    return request.param, mp, application(subject), subject


def test_a_family_has_a_page(case):
    name, mp, app, _ = case
    about = ask(app, "/api/table").json()
    assert [column["name"] for column in about["columns"]] == ["size", "work", "age", "noise"]
    assert sorted(about["needed"]) == ["age", "noise", "size", "work"]
    label = about["classes"][-1] if about["classes"] else "33.5"
    cells = {"size": "41", "work": "office", "age": "", "noise": "1"}
    text = ",".join([*cells, about["label"]]) + "\n" + ",".join([*cells.values(), label])
    rows = ask(app, "/api/paste", {"csv": text}).json()["rows"]
    ids = about["ids"]
    edit = {"table": about["table"], "weights": {ids[0]: 0, ids[1]: 2}, "labels": {ids[2]: label}}
    found = ask(app, "/api/answer", {"edit": {**edit, "added": rows}}).json()
    own = mp.classes[-1] if len(mp.classes) else 33.5
    frame = pl.DataFrame({"size": [41.0], "work": ["office"], "age": [None], "noise": [1.0]})
    added = frame.to_pandas() if name == "pipeline" else frame
    model = mp.edit(
        weights={ids[0]: 0, ids[1]: 2}, labels={ids[2]: own}, added=(added, [own]), engine="exact"
    )
    compared = model.compare()
    assert found["retrained"]
    assert found["scores"][-1]["after"] == pytest.approx(compared.loss_after, rel=1e-9)
    assert (found["coefficients"] is None) == (name == "mlp")
    assert (found["calibration"] is None) == (not mp.model.probabilistic)
    assert len(found["flips"]["cells"]) == len(found["flips"]["rows"])
    explained = ask(app, "/api/explain", {"edit": edit, "row": about["scored"]["ids"][1]}).json()
    assert (explained["flip"] is None) == mp.model.regression
    assert ids[0] not in {row["row_id"] for row in explained["rows"]}
    ask(app, "/api/export", {"edit": {**edit, "added": rows}, "form": "json"})
    names = {"mp": mp, "print": lambda *_: None}
    exec(
        ask(app, "/api/export", {"edit": {**edit, "added": rows}, "form": "python"}).json()["text"],
        names,
    )
    assert np.allclose(names["model"].parameters, model.parameters, rtol=1e-6, atol=1e-9)


def test_code_of_an_estimator_predicts_as_the_model(case):
    name, mp, app, subject = case
    edit = {"table": subject.dataset.fingerprint, "weights": {mp.row_ids[0]: 0}}
    found = ask(app, "/api/export", {"edit": edit, "form": "sklearn"})
    if name == "mlp":
        assert found.status_code == 400
        return
    names = {}
    exec(found.json()["text"], names)
    model = mp.edit(weights={mp.row_ids[0]: 0})
    table, _ = made_table(30, 7)
    if name == "pipeline":
        table = table.to_pandas()
    reading = mp.fitted.reading
    features = reading.cells(reading.rows(table, what="X"), what="X").numpy()
    if name == "pipeline":  # the columns of its coefficients have the table's units
        features = features[:, :0]
        table_features = made_table(30, 7)[0]
        work = np.array(names["columns"])
        filled = table_features["age"].fill_null(made_table(ROWS, 0)[0]["age"].mean())
        columns = {"size": table_features["size"], "age": filled, "noise": table_features["noise"]}
        parts = [
            columns[column].to_numpy()
            if column in columns
            else (table_features["work"] == column.partition("_")[2]).to_numpy().astype(float)
            for column in work
        ]
        features = np.stack(parts, axis=1)
    frame = pl.DataFrame(features, schema=names["columns"]).to_pandas()
    predicted, expected = names["model"].predict(frame), model.predict(table)
    if mp.model.regression:
        assert np.allclose(predicted, expected, rtol=1e-9)
    else:
        assert predicted.tolist() == expected.tolist()
