"""Values of real models: the truth's own values, other utilities, groups, and every table."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError

from modelpred.errors import InvalidInput
from modelpred.metrics import spearman
from modelpred.predictor import Refined
from modelpred.refits import NewtonStep, silent
from modelpred.studies import valuation
from modelpred.studies.results import write_result, written_number
from modelpred.studies.sampling import UndefinedUtility
from modelpred.studies.semivalues import Semivalue, enumerate_values
from modelpred.studies.utility import game_of, utilities_of
from modelpred.studies.valuation import ValuationConfig
from modelpred.targets.scoring import mean_test_losses

SMALL = ValuationConfig(permutations=40, truth_permutations=40)
ROUNDING = 1e-12


def test_exact_refit_agrees_with_the_truth_as_well_as_the_truth_with_itself(exact):
    config = ValuationConfig(permutations=400, truth_permutations=400)
    metrics = valuation.run(config, exact).metrics
    ceiling = metrics["truth_reliability"]
    assert 0.9 < ceiling <= 1
    assert 0.3 < metrics["truth_top_overlap"] <= 1
    # Thirty points: the interval is wide, and it has to hold the ceiling.
    assert metrics["spearman_low"] <= ceiling <= max(metrics["spearman_high"], ceiling - 1e-9)
    assert metrics["spearman"] > 0.9
    assert metrics["truth_not_converged"] == 0


def test_values_of_real_models_add_up_to_the_gain_over_the_prior(exact):
    values = valuation.run(SMALL, exact).tables["values"]
    ends = exact.truth(torch.stack([torch.zeros(exact.pool), torch.ones(exact.pool)]))
    nothing, everything = -mean_test_losses(exact.model, ends, exact.test_points).numpy()
    assert nothing == pytest.approx(-np.log(2), abs=ROUNDING)
    for column in ("value", "true_value"):
        assert values[column].sum() == pytest.approx(everything - nothing, abs=1e-9)


def test_tables_and_metrics(context, tmp_path):
    result = valuation.run(SMALL.model_copy(update={"sampler": "stratified"}), context)
    values, methods = result.tables["values"], result.tables["methods"]
    assert values["row_id"].to_list() == list(context.row_ids)
    by_rank = values.sort("rank")
    assert by_rank["rank"].to_list() == list(range(1, context.pool + 1))
    assert by_rank["value"].is_sorted(descending=True)
    assert methods["method"].to_list() == list(context.refits)
    agreement = spearman(values["value"].to_numpy(), values["true_value"].to_numpy())
    assert result.metrics["spearman"] == written_number(agreement)
    # Ten small places of 30: a round of short orders is one evaluation a point.
    assert result.metrics["evaluations"] == 40 * (20 + 30) + 2
    json.dumps(result.metrics, allow_nan=False)
    write_result(result, tmp_path)


def test_a_refit_that_is_exact_has_the_values_of_retraining(ridge):
    """One Newton step is exact for ridge: on the same orders the values agree."""
    full = ridge.truth(torch.ones(1, ridge.pool))[0]
    newton = NewtonStep(ridge.model, ridge.points, full, tolerance=1e-13)
    config = ValuationConfig(permutations=10, truth_permutations=0)
    refits = {"newton_step": newton, "retraining": ridge.truth}
    values = [
        valuation.run(config, replace(ridge, refits={name: refit})).tables["values"]["value"]
        for name, refit in refits.items()
    ]
    assert values[0].to_numpy() == pytest.approx(values[1].to_numpy(), abs=1e-6)


def test_truth_draws_other_orders_than_the_estimate(exact):
    result = valuation.run(SMALL, exact)
    values = result.tables["values"]
    assert (values["value"] - values["true_value"]).abs().min() > 0


def test_without_truth_the_columns_stay_empty(logistic):
    config = ValuationConfig(permutations=4, truth_permutations=0, rivals=False)
    result = valuation.run(config, logistic)
    assert result.tables["values"]["true_value"].null_count() == logistic.pool
    assert result.tables["methods"].height == 1
    assert result.metrics["spearman"] is None


@pytest.mark.parametrize("utility", ["accuracy", "squared_error"])
def test_other_utilities(context, utility):
    config = ValuationConfig(permutations=4, truth_permutations=4, utility=utility)
    unknown = {"accuracy": "ridge", "squared_error": "svm"}
    if context.model.name == unknown[utility]:
        with pytest.raises(InvalidInput, match=r"set valuation\.utility to loss"):
            valuation.run(config, context)
        return
    values = valuation.run(config, context).tables["values"]["true_value"]
    ends = context.truth(torch.stack([torch.zeros(context.pool), torch.ones(context.pool)]))
    score = utilities_of(context.model, ends, context.test_points, utility=utility)
    assert values.sum() == pytest.approx(float(score[1] - score[0]), abs=1e-9)


def test_a_score_of_ones_own(logistic):
    """The accuracy, written by the user, has the accuracy's values."""

    def accuracy(scores, labels):
        return ((scores[:, :, 0] > 0) == (labels == 1)).double().mean(dim=1)

    config = ValuationConfig(permutations=4, truth_permutations=0, rivals=False)
    own = valuation.run(config, logistic, scoring=accuracy).tables["values"]
    named = config.model_copy(update={"utility": "accuracy"})
    assert own.equals(valuation.run(named, logistic).tables["values"])
    with pytest.raises(InvalidInput, match="a number for each of"):
        valuation.run(config, logistic, scoring=torch.sub)


@pytest.mark.parametrize(
    ("semivalue", "sampler"),
    [
        ("banzhaf", "reuse"),
        ("banzhaf", "stratified"),
        ("beta_shapley", "antithetic"),
        ("leave_one_out", "stratified"),
    ],
)
def test_every_semivalue_of_real_models(exact, semivalue, sampler):
    config = ValuationConfig(
        semivalue=semivalue, sampler=sampler, permutations=100, truth_permutations=100
    )
    result = valuation.run(config, exact)
    values = result.tables["values"]
    gap = (values["value"] - values["true_value"]).abs().to_numpy()
    errors = values.select("standard_error", "true_standard_error").to_numpy()
    assert (gap <= 4 * np.linalg.norm(errors, axis=1) + 1e-7).all()
    # Beta-Shapley of small subsets is noisy: 30 points of which many are worth about the same.
    assert result.metrics["spearman"] > 0.5
    assert result.metrics["semivalue"] == semivalue


def test_groups_of_rows_are_players(exact):
    """Four groups: enumerated, so predicted and true values agree, and they add up."""
    names = ["north", "east", "south", "west"]
    column = [names[point % 4] for point in range(exact.pool)]
    context = replace(exact, rows=pl.DataFrame({"row_id": exact.row_ids, "source": column}))
    config = SMALL.model_copy(update={"group": "source", "rivals": False})
    groups = valuation.run(config, context).tables["groups"]
    assert groups["group"].to_list() == sorted(names)
    assert groups["rows"].sum() == exact.pool
    assert (groups["value"] - groups["true_value"]).abs().max() < 1e-7
    assert groups["standard_error"].to_list() == [0.0] * 4

    def game(weights):
        points = [[weights[row, sorted(names).index(name)] for name in column] for row in range(2)]
        return game_of(exact.truth, exact)(torch.tensor(points))

    ends = game(torch.tensor([[0] * 4, [1] * 4]))
    assert groups["value"].sum() == pytest.approx(float(ends[1] - ends[0]), abs=1e-9)
    # One group's leave-one-out value by hand.
    config = config.model_copy(update={"semivalue": "leave_one_out"})
    table = valuation.run(config, context).tables["groups"]
    pair = game(torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]))
    assert table["value"][3] == pytest.approx(float(pair[1] - pair[0]), abs=1e-9)


def test_groups_that_cannot_be_valued(exact):
    one = replace(exact, rows=pl.DataFrame({"source": ["here"] * exact.pool}))
    gap = replace(exact, rows=pl.DataFrame({"source": ["here", None] * (exact.pool // 2)}))
    for context, column, told in (
        (exact, "source", "no column 'source'; known: none"),
        (one, "vendor", "no column 'vendor'; known: source"),
        (one, "source", "has one group"),
        (gap, "source", "15 cells of 'source' are empty"),
    ):
        with pytest.raises(InvalidInput, match=told):
            valuation.run(SMALL.model_copy(update={"group": column}), context)


def test_a_pool_of_few_points_is_enumerated(ridge):
    game = game_of(ridge.truth, ridge)

    def of_few(weights):
        return game(torch.nn.functional.pad(weights, (0, ridge.pool - 6), value=1))

    config = SMALL.model_copy(update={"semivalue": "banzhaf"})
    found = valuation.values_of(
        of_few,
        config,
        points=6,
        permutations=40,
        generator=np.random.default_rng(0),
        progress=silent,
    )
    exact = enumerate_values(of_few, points=6, semivalue=Semivalue(name="banzhaf"))
    assert np.array_equal(found.values, exact.values)


class _Failing:
    """A refit whose models are no numbers once half of the points are gone."""

    name = "failing"

    def __init__(self, refit):
        self.refit = refit

    def __call__(self, weights):
        parameters = self.refit(weights)
        parameters[weights.sum(dim=1) < weights.shape[1] / 2] = torch.nan
        return parameters


def test_a_rival_that_fails_has_no_values_and_a_subject_that_fails_ends_the_study(exact):
    failing = _Failing(exact.truth)
    context = replace(exact, refits={"predictor": exact.truth, "failing": failing})
    methods = valuation.run(SMALL, context).tables["methods"]
    assert methods["spearman"].null_count() == 1
    assert methods["method"].to_list() == ["predictor", "failing"]
    with pytest.raises(UndefinedUtility, match="have no score"):
        valuation.run(SMALL, replace(exact, refits={"predictor": failing}))


def test_the_subject_is_the_refined_predictor(fitted):
    predictor = fitted.refits["predictor"]
    result = valuation.run(SMALL.model_copy(update={"rivals": False, "refine": 2.0}), fitted)
    assert result.tables["methods"]["method"].to_list() == ["predictor_refined"]
    refined = replace(fitted, refits={"predictor": Refined(predictor, 2.0)})
    expected = valuation.run(SMALL.model_copy(update={"rivals": False}), refined)
    assert result.tables["values"].equals(expected.tables["values"])
    plain = valuation.run(SMALL.model_copy(update={"rivals": False, "refine": 0.0}), fitted)
    assert plain.tables["methods"]["method"].to_list() == ["predictor"]
    assert not plain.tables["values"].equals(result.tables["values"])


def test_a_demand_ends_the_estimate_early(exact):
    config = ValuationConfig(permutations=4000, truth_permutations=0, reliability=0.9, rivals=False)
    metrics = valuation.run(config, exact).metrics
    assert metrics["evaluations"] < 4000 * exact.pool / 2
    assert metrics["reliability"] >= 0.9


@pytest.mark.parametrize(
    "wrong",
    [
        {"permutations": 0},
        {"permutations": 7},
        {"small": 0.6},
        {"utility": "lose"},
        {"semivalue": "banzaf"},
        {"sampler": "reused"},
        {"error": 0.0},
        {"reliability": 1.0},
        {"permutation": 8},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        ValuationConfig(**wrong)
