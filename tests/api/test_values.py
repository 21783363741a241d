"""Values and choices in a notebook are those of the estimators, asked with a caller's tables."""

import numpy as np
import polars as pl
import pytest
import torch

from modelpred import InvalidInput, ModelPred
from modelpred.dataset.grouping import LARGE
from modelpred.studies.semivalues import Semivalue, enumerate_values
from tests.api.conftest import ROWS, TEST, make_rows

CLASSES = {"logistic": 2, "softmax": 3, "svm": 2, "ridge": 0}
TOLERANCE = 1e-5  # of a loss; retrained parameters are within 1e-6 of the optimum
VENDORS = [f"vendor {row % 4}" for row in range(ROWS)]


def held_out(family="logistic"):
    return make_rows(CLASSES[family], TEST, seed=1)


def mean_loss_game(estimator, *, engine="predicted", refine=0):
    """Minus the mean test loss, by the public functions alone."""
    cells, labels = held_out()
    points = estimator._ready.reading.points(cells, labels, what="_test")

    def game(weights):
        weights = weights.double().numpy()
        ask = estimator.retrain if engine == "exact" else estimator.predict_parameters
        parameters = ask(weights) if engine == "exact" else ask(weights, refine=refine)
        model = estimator.model
        degenerate = model.with_prior(
            torch.from_numpy(parameters), torch.from_numpy(weights), estimator._ready.problem.points
        )
        scores = model.scores(degenerate, points.features)
        return -model.losses(scores, points.labels).mean(dim=1)

    return game


@pytest.mark.parametrize("method", ["shapley", "banzhaf", "leave_one_out"])
def test_values_of_groups_are_enumerated_over_joint_rows(logistic, method):
    table = logistic.values(*held_out(), method=method, groups=VENDORS, engine="predicted")
    members = torch.tensor([[row % 4 == vendor for row in range(ROWS)] for vendor in range(4)])
    game = mean_loss_game(logistic, refine=1)
    exact = enumerate_values(
        lambda weights: game(weights.double() @ members.double()),
        points=4,
        semivalue=Semivalue(name=method),
    )
    assert table["group"].to_list() == sorted(set(VENDORS))
    assert table["rows"].to_list() == [10] * 4
    np.testing.assert_allclose(table["value"].to_numpy(), exact.values, atol=1e-6)
    assert table["standard_error"].to_list() == [0.0] * 4


@pytest.mark.parametrize("family", sorted(CLASSES))
def test_values_of_every_family(family, request):
    estimator = request.getfixturevalue(family)
    table = estimator.values(*held_out(family), permutations=4, engine="predicted")
    assert table.columns == ["row_id", "value", "standard_error", "rank"]
    assert table["row_id"].to_list() == list(estimator.row_ids)
    assert table.sort("rank")["value"].is_sorted(descending=True)
    assert (table["standard_error"] > 0).all()


def test_values_suggest_groups_where_a_column_of_a_large_table_looks_like_them(caplog):
    cells, labels = make_rows(2, LARGE + 1)
    rows = pl.DataFrame(cells).with_columns(Vendor=pl.int_range(pl.len()) % 9)
    mp = ModelPred(progress=False).fit(rows, labels)
    mp.values(permutations=2)
    assert "'Vendor' (9 groups)" in caplog.text
    caplog.clear()
    mp.values(permutations=2, groups=rows["Vendor"])
    assert "Vendor" not in caplog.text


def test_values_know_how_they_were_estimated(logistic):
    table = logistic.values(*held_out(), permutations=4)
    noise = (table["standard_error"] ** 2).mean()
    assert table.reliability == pytest.approx(1 - noise / table["value"].var(ddof=0))
    assert table.sampler == "stratified"
    assert table.models >= 2 * ROWS


def test_values_add_up_and_a_seed_decides_them(logistic):
    table = logistic.values(*held_out(), permutations=4)
    game = mean_loss_game(logistic, refine=1)
    ends = game(torch.stack([torch.zeros(ROWS), torch.ones(ROWS)]))
    assert table["value"].sum() == pytest.approx(float(ends[1] - ends[0]), abs=1e-6)
    assert table.equals(logistic.values(*held_out(), permutations=4))
    assert not table.equals(logistic.values(*held_out(), permutations=4, seed=1))


@pytest.mark.parametrize("family", sorted(CLASSES))
def test_direct_answers_have_bounds_of_their_distance_from_retraining(family, request):
    estimator = request.getfixturevalue(family)
    asked = {"method": "leave_one_out", "engine": "exact"}
    exact = estimator.values(*held_out(family), sampler="one_by_one", **asked)
    direct = estimator.values(*held_out(family), sampler="direct", **asked)
    assert exact.columns == ["row_id", "value", "standard_error", "rank"]
    assert direct.columns == ["row_id", "value", "standard_error", "bound", "rank"]
    error = (direct["value"] - exact["value"]).abs()
    assert (error <= direct["bound"] + 2 * TOLERANCE).all()


@pytest.mark.parametrize("engine", ["predicted", "exact"])
def test_leave_one_out_is_the_plain_loop(logistic, engine):
    refine = 0 if engine == "exact" else 1
    table = logistic.values(*held_out(), method="leave_one_out", engine=engine, refine=refine)
    game = mean_loss_game(logistic, engine=engine, refine=refine)
    whole = game(torch.ones(1, ROWS))
    loop = [float(whole - game(1 - torch.eye(ROWS)[row : row + 1])) for row in range(ROWS)]
    np.testing.assert_allclose(table["value"].to_numpy(), loop, atol=1e-6)


def test_a_score_of_ones_own_and_the_settings_of_the_estimator(logistic):
    named = logistic.values(*held_out(), utility="accuracy", permutations=4)

    def accuracy(scores, labels):
        return ((scores[:, :, 0] > 0) == labels.bool()).double().mean(dim=1)

    own = logistic.values(*held_out(), utility=accuracy, permutations=4)
    np.testing.assert_allclose(own["value"].to_numpy(), named["value"].to_numpy())
    early = logistic.values(*held_out(), permutations=4000, error=0.5, sampler="permutation")
    assert 0 < early["standard_error"].max() <= 0.5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "shaply"}, "method is 'shaply'"),
        ({"permutations": 3}, "permutations is 3"),
        ({"alfa": 2}, "alfa is 2"),
        ({"utility": "auc"}, "unknown utility 'auc'; known: loss, accuracy"),
        ({"groups": ["a", "b"]}, f"2 groups for {ROWS} rows"),
        ({"groups": ["a"] * ROWS}, "one group"),
        ({"groups": [None, *VENDORS[1:]]}, "1 cells"),
    ],
)
def test_values_that_cannot_be_asked_for(logistic, wrong, message):
    with pytest.raises(InvalidInput, match=message):
        logistic.values(*held_out(), **wrong)


def test_every_gain_is_the_exact_loss_of_a_row_of_the_selection(logistic):
    table = logistic.select(12, *held_out())
    assert table["gain"].is_sorted(descending=True)
    chosen = torch.zeros(ROWS, dtype=torch.bool)
    chosen[torch.tensor(table["position"].to_list())] = True
    assert int(chosen.sum()) == 12
    first = table.row(0, named=True)
    without = chosen.clone()
    without[first["position"]] = False
    both = mean_loss_game(logistic, engine="exact")(torch.stack([chosen, without]))
    assert first["gain"] == pytest.approx(float(both[0] - both[1]), abs=1e-6)
    assert first["row_id"] == logistic.row_ids[first["position"]]


def test_a_choice_keeps_its_quotas(logistic):
    counts = logistic.select(8, *held_out(), quota=VENDORS)["position"].to_numpy() % 4
    assert np.bincount(counts).tolist() == [2, 2, 2, 2]
    _, labels = make_rows(2)
    chosen = logistic.select(10, *held_out(), quota="class", engine="exact")["position"].to_numpy()
    promised = 10 * np.bincount(labels) // ROWS
    assert (np.bincount(labels[chosen], minlength=2) >= promised).all()


@pytest.mark.parametrize(
    ("k", "wrong", "message"),
    [
        (0, {}, "k is 0"),
        (ROWS + 1, {}, f"k is {ROWS + 1}"),
        (3, {"quota": "vendor"}, "quota is 'vendor'"),
        (3, {"swaps": -1}, "swaps is -1"),
    ],
)
def test_choices_that_cannot_be_made(logistic, k, wrong, message):
    with pytest.raises(InvalidInput, match=message):
        logistic.select(k, *held_out(), **wrong)


def test_a_regression_has_no_classes_to_keep(ridge):
    with pytest.raises(InvalidInput, match="no classes"):
        ridge.select(3, *held_out("ridge"), quota="class")
    table = ridge.select(3, *held_out("ridge"))
    assert isinstance(table, pl.DataFrame)
    assert table.height == 3
