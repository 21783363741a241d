"""Attribution: derivatives against differences, names, and exact answers that agree with themselves."""

import copy
import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError

from modelpred.errors import InvalidInput
from modelpred.predictor import Refined
from modelpred.refits import Influence, Retraining
from modelpred.studies import attribution, parameter_attribution
from modelpred.studies.attribution import AttributionConfig
from modelpred.studies.parameter_attribution import derivatives, parameter_names, removals_of
from modelpred.studies.results import write_result
from modelpred.targets import target_model

SMALL = AttributionConfig(rows=3, explained=3)


def test_derivatives_are_differences_of_the_network(fitted):
    """In double precision, by differences towards less weight, with an error of the width's square.

    Sizes beyond the pool are cut off, so at w = 1 only the side where rows are removed is smooth.
    """
    single = fitted.refits["predictor"]
    predictor = replace(single, network=copy.deepcopy(single.network).double())
    found = derivatives(predictor)
    ones = torch.ones(fitted.pool, dtype=torch.float64)
    for row in (0, 13, 29):
        step = torch.zeros_like(ones)
        step[row] = 1e-5
        rows = torch.stack([ones, ones - step, ones - 2 * step])
        with torch.no_grad():
            full, near, far = predictor.network.answer(
                rows, predictor.bound, stage=predictor.stages
            )
        slope = (3 * full - 4 * near + far) / 2e-5
        assert found[:, row].tolist() == pytest.approx(slope.tolist(), abs=1e-6)
    # Single precision, in which the predictor answers, is near.
    assert derivatives(single).numpy() == pytest.approx(found.numpy(), abs=1e-4)


def test_chosen_parameters_are_rows_of_all(fitted, monkeypatch):
    predictor = fitted.refits["predictor"]
    everything = derivatives(predictor)
    monkeypatch.setattr(parameter_attribution, "DERIVATIVE_ROWS", 1)
    chosen = derivatives(predictor, torch.tensor([3, 1]))
    assert chosen.numpy() == pytest.approx(everything[[3, 1]].numpy(), abs=1e-6)


def test_derivatives_of_refined_answers_are_those_of_retraining(fitted):
    predictor = fitted.refits["predictor"]
    full = fitted.truth(torch.ones(1, fitted.pool))[0]
    influence = Influence(fitted.model, fitted.points, full)
    found = derivatives(Refined(predictor, 4.0))
    size = float(influence.derivatives.abs().max())
    assert found.numpy() == pytest.approx(influence.derivatives.T.numpy(), abs=1e-3 * size)


def test_an_svm_is_differentiated_through_its_inverted_hessians(fitted_svm):
    context = fitted_svm
    full = context.truth(torch.ones(1, context.pool))[0]
    influence = Influence(context.model, context.points, full)
    found = derivatives(Refined(context.refits["predictor"], 4.0))
    size = float(influence.derivatives.abs().max())
    assert found.numpy() == pytest.approx(influence.derivatives.T.numpy(), abs=1e-3 * size)


def test_rows_that_move_nothing_are_ties(fitted_svm):
    """As an SVM's rows with margins above one are, whatever rounding says of each."""
    methods = attribution.run(AttributionConfig(explained=0), fitted_svm).metrics["methods"]
    for name in ("predictor", "predictor_refined"):
        assert methods[name]["spearman"] >= methods["influence"]["spearman"] - 0.01


@pytest.mark.parametrize("wrong", [-1, 4])
def test_a_parameter_that_the_model_lacks_is_refused(fitted, wrong):
    with pytest.raises(InvalidInput, match="from 0 to 3"):
        derivatives(fitted.refits["predictor"], torch.tensor([0, wrong]))


def test_a_predictor_knows_the_responsible_rows(fitted):
    result = attribution.run(SMALL, fitted)
    assert result.tables["methods"]["method"].to_list() == [
        *("predictor", "predictor_unrefined", "predictor_removals"),
        *(*list(fitted.refits)[1:], "predictor_refined"),
    ]
    assert result.metrics["spearman"] > 0.95
    assert result.metrics["methods"]["predictor_unrefined"]["spearman"] > 0.8  # fitted for seconds
    assert result.metrics["methods"]["predictor_refined"]["spearman"] > 0.99
    assert set(result.tables["flips"]["method"]) == {
        *("predictor", "predictor_refined", "influence", "newton_step")
    }


def test_responsible_rows_are_ranked_by_what_their_removal_does(fitted):
    for refine, removal in ((2.0, Refined(fitted.refits["predictor"], 2.0)), (0.0, None)):
        config = AttributionConfig(explained=0, rows=4, refine=refine)
        table = attribution.run(config, fitted).tables["responsible"]
        expected = removals_of(removal or fitted.refits["predictor"], fitted)[1].numpy()
        mine = table.filter(pl.col("parameter") == 1)
        strongest = np.argsort(-np.abs(expected), kind="stable")[:4]
        assert mine["row_id"].to_list() == [fitted.row_ids[row] for row in strongest]
        assert mine["removal"].to_numpy() == pytest.approx(expected[strongest], abs=1e-9)


def test_a_parameter_that_no_row_moves_has_no_correlation(logistic):
    """A column of zeros: its coefficient is zero with any rows, up to rounding."""
    points = logistic.points
    empty = points.features.clone()
    empty[:, 2] = 0
    pool = replace(points, features=empty)
    truth = Retraining(logistic.model, pool, tolerance=1e-9)
    context = replace(logistic, refits={"predictor": truth}, truth=truth)
    table = attribution.run(AttributionConfig(explained=0), context).tables["parameters"]
    assert [value is None for value in table["spearman"]] == [False, False, True, False]


def test_without_refinement_there_is_no_refined_predictor(fitted):
    config = AttributionConfig(explained=0, refine=0.0)
    assert "predictor_refined" not in attribution.run(config, fitted).metrics["methods"]


def test_removals_of_influence_are_its_derivatives(context):
    full = context.truth(torch.ones(1, context.pool))[0]
    influence = Influence(context.model, context.points, full)
    found = removals_of(influence, context)
    assert found.numpy() == pytest.approx(influence.derivatives.T.numpy(), abs=1e-9)


def test_exact_retraining_as_subject_agrees_with_itself(exact):
    result = attribution.run(AttributionConfig(rows=4, explained=5), exact)
    assert result.metrics["spearman_low"] == pytest.approx(1, abs=1e-9)
    assert result.metrics["above"] == 1
    rows = result.tables["responsible"]
    for name in ("derivative", "removal"):
        assert rows[name].to_numpy() == pytest.approx(rows["exact"].to_numpy(), abs=1e-7)
    effects = result.tables["effects"]
    assert effects["effect"].to_numpy() == pytest.approx(effects["exact"].to_numpy(), abs=1e-6)
    flips = result.tables["flips"]
    assert flips["confirmed"].to_list() == flips["found"].to_list()
    assert (flips["margin"] > 0).all()


def test_responsible_rows_are_the_strongest_by_exhaustion(exact):
    table = attribution.run(SMALL, exact).tables["responsible"]
    full = exact.truth(torch.ones(1, exact.pool))[0]
    for parameter in range(4):
        moved = []
        for row in range(exact.pool):
            weights = torch.ones(1, exact.pool)
            weights[0, row] = 0
            moved.append(float(full[parameter] - exact.truth(weights)[0, parameter]))
        expected = np.argsort(-np.abs(moved))[:3]
        mine = table.filter(pl.col("parameter") == parameter)
        assert mine["row_id"].to_list() == [exact.row_ids[row] for row in expected]
        assert mine["place"].to_list() == [1, 2, 3]


def test_places_have_names(context):
    named = replace(context, feature_names=("a", "b", "c"), class_names=("x", "y", "z"))
    found = [(place.class_name, place.feature) for place in parameter_names(named)]
    names = ["a", "b", "c", "intercept"]
    if context.model.name == "softmax":
        assert found == [(label, name) for label in "xyz" for name in names]
    else:
        assert found == [("", name) for name in names]
    assert parameter_names(context)[1].feature == "feature 1"


def test_parameters_of_a_network_have_numbers(logistic):
    network = replace(logistic, truth=Retraining(target_model("mlp", hidden=2), logistic.points))
    assert [place.feature for place in parameter_names(network)][:2] == [
        "parameter 0",
        "parameter 1",
    ]
    assert len(parameter_names(network)) == 2 * 4 + 2 * 3


def test_tables_and_metrics(context, tmp_path):
    result = attribution.run(SMALL, context)
    json.dumps(result.metrics, allow_nan=False)
    write_result(result, tmp_path)
    tables = result.tables
    size = len(parameter_names(context))
    assert len(tables["responsible"]) == 3 * size
    assert len(tables["effects"]) == 9
    assert tables["parameters"]["spearman_influence"].min() > 0.8
    assert result.metrics["truth_not_converged"] == 0
    if context.model.regression:
        assert tables["flips"].is_empty()
        assert tables["flip_methods"].is_empty()
    else:
        assert len(tables["flips"]) == 9  # the first refit as the subject, and two rivals
        assert tables["flip_methods"]["rows"].to_list() == [3, 3, 3]


def test_one_test_row_and_none_explained(logistic):
    one = type(logistic.test_points)(
        logistic.test_points.features[:1], logistic.test_points.labels[:1], 2
    )
    single = attribution.run(SMALL, replace(logistic, test_points=one))
    assert set(single.tables["flips"]["test_row"]) == {0}
    nothing = attribution.run(AttributionConfig(explained=0), logistic)
    assert nothing.tables["effects"].is_empty()
    assert nothing.tables["flip_methods"].is_empty()


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"largest": 1.0}, {"explained": -1}, {"row": 5}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        AttributionConfig(**wrong)
