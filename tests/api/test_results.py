"""Results in a notebook: plots, original cells, cleaned tables, candidates, curves, reliability."""

import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from modelpred import ModelPred
from modelpred.errors import InvalidInput
from modelpred.metrics import reliability_table

ROWS, TEST = 60, 30
GENERATOR = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "age": GENERATOR.normal(size=ROWS + TEST),
        "city": GENERATOR.choice(["Ulm", "Bonn"], ROWS + TEST),
        "label": "a column of this name",  # constant, so that no feature comes of it
    },
    index=[f"id-{row}" for row in range(ROWS + TEST)],
)
LABELS = np.where(TABLE["age"] + GENERATOR.normal(size=ROWS + TEST) > 0, "yes", "no")
TRAIN, HELD_OUT = (TABLE[:ROWS], LABELS[:ROWS]), (TABLE[ROWS:], LABELS[ROWS:])


@pytest.fixture(scope="module")
def model():
    return ModelPred("logistic", progress=False).fit(*TRAIN, test=HELD_OUT)


@pytest.fixture(scope="module")
def values(model):
    return model.values(permutations=10, engine="exact")


@pytest.fixture(autouse=True)
def closed():
    """Figures are closed, or matplotlib warns."""
    yield
    plt.close("all")


def test_results_are_drawn_on_an_axis_of_matplotlib(model, values):
    few = model.values(groups=list(TABLE["city"][:ROWS]), engine="exact")
    for result in (
        values,
        few,
        model.suspects(engine="exact"),
        model.memorization(subsets=50, engine="exact"),
        model.reliability(),
        model.removal_curve(values, draws=2, engine="exact"),
    ):
        assert isinstance(result.plot(), Axes)
        own = plt.figure().subplots()
        assert result.plot(own) is own
        assert own.lines
        assert own.get_xlabel()
    ticks = [tick.get_text() for tick in few.plot().get_yticklabels()]
    assert ticks == few.sort("value", descending=True)["group"].to_list()


def test_results_show_in_a_notebook_what_print_shows(model):
    edited = model.without([0], engine="exact")
    for result in (edited, edited.compare(), model.suspects(engine="exact"), model.reliability()):
        assert repr(result) == str(result)
        assert result._repr_html_().startswith("<pre>")
        assert "<script" not in result._repr_html_()


def test_original_cells_stand_beside_results(model):
    for table in (
        model.values(permutations=2, with_cells=True, engine="exact"),
        model.suspects(with_cells=True, engine="exact").rows,
        model.select(5, *HELD_OUT, swaps=0, with_cells=True, engine="exact"),
        model.memorization(subsets=50, with_cells=True, engine="exact").rows,
    ):
        for row in table.iter_rows(named=True):
            assert row["age"] == TABLE.loc[row["row_id"], "age"]
            assert row["city"] == TABLE.loc[row["row_id"], "city"]
    with pytest.raises(InvalidInput, match="a group has no cells"):
        model.values(groups=list(TABLE["city"][:ROWS]), with_cells=True, engine="exact")


@pytest.mark.parametrize("kind", ["pandas", "numpy", "sparse", "polars"])
def test_cells_of_an_estimators_rows_are_those_before_its_preprocessing(kind):
    numbers = TABLE[["age"]].assign(twice=2 * TABLE["age"])[:ROWS]
    convert = {
        "pandas": lambda x: x,
        "numpy": np.array,
        "sparse": csr_matrix,
        "polars": pl.from_pandas,
    }
    fitted = ModelPred(LogisticRegression(), progress=False).fit(convert[kind](numbers), TRAIN[1])
    cells = fitted.cleaned(drop=[0]).drop("row_id", "label")
    np.testing.assert_array_equal(cells.to_numpy(), numbers.to_numpy()[1:])


def test_a_cleaned_table_has_neither_dropped_rows_nor_old_labels(model, tmp_path):
    suspects = model.suspects(engine="exact")
    first, second = suspects.rows.head(3), suspects.rows[3:6]
    table = model.cleaned(drop=first, relabel=second)
    assert table["row_id"].to_list() == [
        name for name in model.row_ids if name not in set(first["row_id"])
    ]
    new = dict(second.select("row_id", "suggested").iter_rows())
    for row in table.iter_rows(named=True):
        old = LABELS[int(row["row_id"].removeprefix("id-"))]
        assert row[table.columns[-1]] == new.get(row["row_id"], old)
    table.write_csv(tmp_path / "cleaned.csv")
    assert pl.read_csv(tmp_path / "cleaned.csv").height == ROWS - 3
    by_hand = model.cleaned(relabel={"id-3": "no", 4: "yes"})
    assert by_hand[table.columns[-1]][3:5].to_list() == ["no", "yes"]
    with pytest.raises(InvalidInput, match="'id-3' is to be dropped and relabelled"):
        model.cleaned(drop=[3], relabel={"id-3": "no"})
    with pytest.raises(InvalidInput, match="'maybe'"):
        model.cleaned(relabel={"id-3": "maybe"})
    with pytest.raises(InvalidInput, match="no columns row_id and suggested"):
        model.cleaned(relabel=pl.DataFrame({"row_id": ["id-3"]}))


def test_probabilities_of_any_classifier_judge_the_labels(model):
    labels = TRAIN[1].copy()
    planted = np.flatnonzero(np.abs(TABLE["age"][:ROWS]) > 1.5)[:3]
    labels[planted] = np.where(labels[planted] == "yes", "no", "yes")
    fitted = ModelPred("logistic", progress=False).fit(TRAIN[0], labels)
    rows = TABLE[["age"]][:ROWS]
    probabilities = cross_val_predict(LogisticRegression(), rows, labels, method="predict_proba")
    found = fitted.suspects(pred_probs=probabilities).rows
    own = (labels == "yes").astype(int)
    odds = np.log(probabilities[np.arange(ROWS), own] / probabilities[np.arange(ROWS), 1 - own])
    np.testing.assert_allclose(found.sort("position")["confidence"], odds, rtol=1e-9)
    assert set(planted) <= set(found["position"][:10])
    assert (
        found["suggested"].to_list()
        == np.array(["no", "yes"])[probabilities.argmax(1)][found["position"]].tolist()
    )
    with pytest.raises(InvalidInput, match=r"expected \[rows, classes\] = \[60, 2\]"):
        model.suspects(pred_probs=probabilities[:5])
    with pytest.raises(InvalidInput, match="must sum to 1"):
        model.suspects(pred_probs=2 * probabilities)
    with pytest.raises(InvalidInput, match="leave out the other rows"):
        model.suspects(pred_probs=probabilities, forest=True)


@pytest.mark.parametrize("engine", ["exact", "predicted"])
def test_candidates_are_ranked_by_what_each_alone_would_gain(engine):
    fitted = ModelPred("logistic", subsets=20, progress=False).fit(*TRAIN, test=HELD_OUT)
    new = TABLE[ROWS : ROWS + 6], LABELS[ROWS : ROWS + 6]
    found = fitted.rank_candidates(*new, ids=list("abcdef"), engine=engine)
    before = fitted.full_model().loss(*HELD_OUT)
    expected = [
        before - fitted.with_points(new[0][at : at + 1], new[1][at : at + 1], engine="exact").loss(*HELD_OUT)
        for at in range(6)
    ]  # fmt: skip
    tolerance = 1e-6 if engine == "exact" else 2e-3
    ranked = np.argsort(-np.array(expected), kind="stable")
    np.testing.assert_allclose(found.sort("position")["gain"], expected, atol=tolerance)
    if engine == "exact":
        assert found["position"].to_list() == ranked.tolist()
    assert found["label"].to_list() == new[1][found["position"].to_numpy()].tolist()
    assert set(found["row_id"]) == set("abcdef")


def test_a_removal_curve_is_that_of_a_loop(model, values):
    curve = model.removal_curve(values, shares=[0.1, 0.5], draws=2, engine="exact").table
    order = values.sort("value", descending=True)["row_id"].to_list()
    for name, ranked in (("highest", order), ("lowest", order[::-1])):
        own = curve.filter(pl.col("removed") == name)
        assert own["share"].to_list() == [0, 0.1, 0.5]
        for row in own.iter_rows(named=True):
            gone = ranked[: row["rows"]]
            edited = model.without(gone, engine="exact") if gone else model.full_model()
            assert row["score"] == pytest.approx(-edited.loss(*HELD_OUT), abs=1e-6)
    by_array = model.removal_curve(
        values["value"].to_numpy(), shares=[0.1, 0.5], draws=2, engine="exact"
    )
    assert by_array.table.equals(curve)
    with pytest.raises(InvalidInput, match="expected shares above 0"):
        model.removal_curve(values, shares=[1.5])
    with pytest.raises(InvalidInput, match="name other rows"):
        model.removal_curve(values.head(3))


def test_reliability_is_that_of_the_probabilities(model):
    found = model.reliability(*HELD_OUT, bins=5)
    encoded = (HELD_OUT[1] == "yes").astype(int)
    expected = reliability_table(model.predict_proba(HELD_OUT[0]), encoded, bins=5)
    assert found.bins.equals(expected)
    assert found.error == pytest.approx(model.reliability(bins=5).error)
    bare = ModelPred("logistic", progress=False).fit(*TRAIN)
    with pytest.raises(InvalidInput, match="there are no rows to score on"):
        bare.reliability()


def test_reweighted_models_are_those_of_edits(model):
    weights = np.ones(ROWS)
    weights[[2, 5]] = [0, 3]
    by_name = model.reweighted({"id-2": 0, 5: 3}, engine="exact")
    by_array = model.reweighted(weights, engine="exact")
    np.testing.assert_allclose(by_name.parameters, by_array.parameters, atol=1e-9)
    assert by_name.compare().rows == TEST


def test_the_guide_names_methods_that_there_are():
    guide = ModelPred.__doc__.split("Args:")[0]
    named = set(re.findall(r"`(\w+)`", guide))
    assert len(named) > 20
    of_results = {"compare", "coefficients", "retrained"}
    assert not [name for name in named - of_results if not hasattr(ModelPred, name)]
