"""The fidelity table: retraining is exact in it, and failed targets are no truth."""

from types import SimpleNamespace

import pytest
import torch

from modelpred.errors import InvalidInput
from modelpred.predictor import fidelity
from modelpred.refits import Retraining


def _bank(case, converged=None):
    weights, parameters = case.held_out
    half = len(weights) // 2
    return SimpleNamespace(
        designs=("uniform",) * half + ("deletion",) * (len(weights) - half),
        weights=weights,
        parameters=parameters,
        converged=torch.ones(len(weights), dtype=torch.bool) if converged is None else converged,
        degenerate=torch.zeros(len(weights), dtype=torch.bool),
    )


def test_retraining_has_no_error(case):
    truth = Retraining(case.model, case.points, tolerance=1e-9)
    table = fidelity(
        {"retraining": truth, "predictor": case.predictor},
        _bank(case), model=case.model, points=case.points, test_points=case.points,
    )  # fmt: skip
    assert table["method"].to_list() == ["retraining", "predictor"] * 2
    assert table["design"].to_list() == ["uniform"] * 2 + ["deletion"] * 2
    exact = table.filter(table["method"] == "retraining")
    assert exact["parameter_error"].max() < 1e-7
    assert exact["spearman_within_size"].min() > 0.999
    assert (table["parameter_error_low"] <= table["parameter_error"]).all()
    assert (table["microseconds"] > 0).all()


def test_rows_that_did_not_converge_are_left_out(logistic):
    converged = torch.ones(len(logistic.held_out[0]), dtype=torch.bool)
    converged[:10] = False
    table = fidelity(
        {"predictor": logistic.predictor},
        _bank(logistic, converged),
        model=logistic.model, points=logistic.points, test_points=logistic.points,
    )  # fmt: skip
    assert table["subsets"].sum() == len(converged) - 10
    assert table["left_out"].to_list() == [10, 0]


def test_subsets_without_an_optimum_judge_nothing(logistic):
    bank = _bank(logistic)
    bank.degenerate[:] = True
    with pytest.raises(InvalidInput, match=r"none of the .* held-out subsets has a trained model"):
        fidelity(
            {"predictor": logistic.predictor}, bank,
            model=logistic.model, points=logistic.points, test_points=logistic.points,
        )  # fmt: skip
