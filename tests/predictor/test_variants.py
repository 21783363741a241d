"""The curve from prediction towards retraining."""

import torch

from modelpred.predictor import Refined, refinement_curve
from tests.predictor.conftest import with_two_again


def test_the_curve_is_what_predict_says_and_ends_nearer_to_retraining(case):
    weights = case.held_out[0]
    curve = refinement_curve(case.predictor, steps=(0.5, 2))
    assert list(curve) == ["predictor_refine_0.5", "predictor_refine_2"]
    torch.testing.assert_close(
        curve["predictor_refine_0.5"](weights), case.predictor.predict(weights, refine=0.5)
    )
    errors = [
        float((refit(weights) - case.held_out[1]).norm())
        for refit in (case.predictor, *curve.values())
    ]
    assert errors == sorted(errors, reverse=True)


def test_over_a_longer_pool_it_refines_with_the_added_points(case):
    longer = with_two_again(case.points)
    weights = torch.ones(1, len(longer.labels), dtype=torch.float64)
    torch.testing.assert_close(
        Refined(case.predictor, 1).for_points(longer)(weights),
        case.predictor.for_points(longer).predict(weights, refine=1),
    )
