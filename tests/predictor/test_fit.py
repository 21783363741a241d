"""Fitting learns, repeats itself to the byte, and refuses what it cannot learn from."""

import pytest
import torch

from modelpred.errors import InvalidInput
from modelpred.metrics import relative_errors
from modelpred.predictor import PredictorConfig, fit_predictor, predictor_fingerprint
from modelpred.predictor.files import read_predictor, write_predictor
from modelpred.refits import rivals
from modelpred.subsets import SubsetsConfig, draw_subsets
from modelpred.targets import spill, target_model, train_targets
from tests.predictor.conftest import make_case, make_points

SMALL = PredictorConfig(epochs=2, width=16, step_width=8, steps=2)


def test_it_is_nearer_than_the_cheap_rivals(case):
    weights, true = case.held_out
    ours = relative_errors(case.predictor(weights), true).mean()
    others = rivals(case.model, case.points, *case.fit)
    for name in ("full_model", "influence", "rescaled_influence", "linear_datamodel"):
        assert ours < relative_errors(others[name](weights), true).mean(), name


def test_fitting_lowers_the_validation_error(logistic):
    errors = [record["validation_error"] for record in logistic.predictor.history]
    assert errors[-1] < errors[0]
    assert len(errors) == 8


def test_the_best_weights_seen_are_kept(logistic):
    """A fit that is watched by the anchors, from which it moves on to better answers."""
    weights = logistic.held_out[0]
    watched = weights, logistic.predictor.bound.anchors(weights.float()).double()
    config = SMALL.model_copy(update={"epochs": 6, "batch": 16})
    predictor = fit_predictor(
        config, logistic.model, logistic.points, *logistic.fit, validation=watched
    )
    errors = [record["validation_error"] for record in predictor.history]
    kept = relative_errors(predictor(watched[0]), watched[1]).mean()
    assert kept == pytest.approx(min(errors), rel=1e-5)
    assert min(errors) < errors[-1]


@pytest.mark.parametrize(("patience", "ended"), [(2, True), (None, False)])
def test_a_fit_ends_when_the_validation_error_falls_no_more(logistic, patience, ended):
    weights = logistic.held_out[0]
    watched = weights, logistic.predictor.bound.anchors(weights.float()).double()
    config = SMALL.model_copy(update={"epochs": 12, "batch": 16, "patience": patience})
    told = []
    predictor = fit_predictor(
        config, logistic.model, logistic.points, *logistic.fit, validation=watched,
        progress=lambda done, total, _: told.append((done, total)),
    )  # fmt: skip
    errors = [record["validation_error"] for record in predictor.history]
    assert (len(errors) < 12) == ended
    assert told[-1] == (12, 12)
    kept = relative_errors(predictor(watched[0]), watched[1]).mean()
    assert kept == pytest.approx(min(errors), rel=1e-5)
    if ended:
        assert len(errors) == max(errors.index(min(errors)) + 1, 6) + patience


def test_a_fit_that_nobody_watches_goes_on_to_the_end(logistic):
    config = SMALL.model_copy(update={"patience": 1, "epochs": 4})
    predictor = fit_predictor(config, logistic.model, logistic.points, *logistic.fit)
    assert len(predictor.history) == 4


def test_weights_of_a_byte_give_the_same_predictor(logistic):
    weights, true = logistic.fit
    answers = [
        fit_predictor(SMALL, logistic.model, logistic.points, kind, true)(logistic.held_out[0])
        for kind in (weights, weights.to(torch.uint8), weights.to(torch.int32))
    ]
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])


def test_a_bank_in_files_gives_the_same_predictor(logistic, tmp_path, monkeypatch):
    prints = []
    for largest in (spill.LARGEST, 0):
        monkeypatch.setattr(spill, "LARGEST", largest)
        predictor = fit_predictor(SMALL, logistic.model, logistic.points, *logistic.fit)
        write_predictor(predictor, tmp_path / str(largest))
        prints.append(predictor_fingerprint(tmp_path / str(largest)))
    assert prints[0] == prints[1]


def test_same_seed_same_bytes(tmp_path, logistic):
    prints = []
    for name in ("first", "second"):
        predictor = fit_predictor(SMALL, logistic.model, logistic.points, *logistic.fit)
        write_predictor(predictor, tmp_path / name)
        prints.append(predictor_fingerprint(tmp_path / name))
    other = fit_predictor(
        SMALL.model_copy(update={"seed": 1}), logistic.model, logistic.points, *logistic.fit
    )
    write_predictor(other, tmp_path / "other")
    assert prints[0] == prints[1] != predictor_fingerprint(tmp_path / "other")


@pytest.mark.parametrize("network", ["anchored", "paper"])
@pytest.mark.parametrize("term", ["optimality", "utility"])
def test_regularisers_can_be_switched_in_either_network(logistic, network, term):
    base = {"network": network, "epochs": 1, "width": 16, "step_width": 8, "steps": 1}
    answers = [
        fit_predictor(
            PredictorConfig(**base, **{term: strength}),
            logistic.model, logistic.points, *logistic.fit,
        )(logistic.held_out[0])
        for strength in (0.0, 1.0)
    ]  # fmt: skip
    assert bool(torch.isfinite(answers[1]).all())
    assert not torch.equal(answers[0], answers[1])


def test_degenerate_subsets_get_the_defined_model(logistic):
    one_class = logistic.points.labels.to(torch.float64)[None]
    count = float(one_class.sum())
    answer = logistic.predictor(torch.cat([one_class, torch.zeros_like(one_class)]))
    expected = torch.zeros_like(answer)
    expected[0, -1] = torch.log(torch.tensor((count + 0.5) / 0.5))
    torch.testing.assert_close(answer, expected)


def test_progress_is_told_every_epoch(logistic):
    seen = []
    fit_predictor(
        SMALL, logistic.model, logistic.points, *logistic.fit,
        progress=lambda done, total, what: seen.append((done, total, what)),
    )  # fmt: skip
    assert [record[:2] for record in seen] == [(1, 2), (2, 2)]


def test_targets_that_are_not_finite_are_named(logistic):
    weights, true = logistic.fit
    broken = true.clone()
    broken[3, 0] = torch.nan
    with pytest.raises(InvalidInput, match=r"1 fit targets are not finite \(first: row 3"):
        fit_predictor(SMALL, logistic.model, logistic.points, weights, broken)
    with pytest.raises(InvalidInput, match=r"1 validation targets are not finite \(first: row 3"):
        fit_predictor(
            SMALL, logistic.model, logistic.points, weights, true, validation=(weights, broken)
        )


def test_a_learning_rate_that_explodes_stops_the_fit(logistic):
    wild = SMALL.model_copy(update={"network": "paper", "learning_rate": 1e30})
    with pytest.raises(InvalidInput, match=r"smaller predictor\.learning_rate"):
        fit_predictor(wild, logistic.model, logistic.points, *logistic.fit)


def test_fewer_targets_than_weights_is_an_error(logistic):
    weights, true = logistic.fit
    with pytest.raises(InvalidInput, match="rows of parameters"):
        fit_predictor(SMALL, logistic.model, logistic.points, weights, true[1:])


def test_nothing_to_learn_from(logistic):
    weights, true = logistic.fit
    with pytest.raises(InvalidInput, match="have an optimum to learn from"):
        fit_predictor(SMALL, logistic.model, logistic.points, 0 * weights, true)


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        (torch.ones(2, 39), "another pool"),
        (torch.ones(40), r"expected \[subsets, points\]"),
        (-torch.ones(1, 40), "not negative"),
        (torch.full((1, 40), torch.nan), "finite"),
    ],
)
def test_wrong_weights_are_refused(logistic, weights, why):
    with pytest.raises(InvalidInput, match=why):
        logistic.predictor(weights)


def test_no_subsets_no_answers(logistic):
    assert logistic.predictor(torch.zeros(0, 40)).shape == (0, 5)


def test_points_of_another_width_are_refused(logistic):
    other = make_case("ridge").points
    narrow = type(other)(other.features[:, :2], other.labels, 0)
    with pytest.raises(InvalidInput, match="2 features"):
        logistic.predictor.for_points(narrow)


def test_a_family_of_fixed_steps_is_learned_and_refined(tmp_path):
    """No optimum, no path: a short training leads to the parameters, more of it refines."""
    points = make_points("softmax", 40)
    model = target_model("mlp", hidden=3, steps=60)
    drawn = draw_subsets(
        SubsetsConfig(fit={"uniform": 300}, validation={"uniform": 40}, test={"uniform": 60}),
        points=40,
    )
    weights = drawn.weights.to(torch.float64)
    trained = train_targets(model, points.features, points.labels, weights, classes=3)
    rows = {role: torch.tensor([r == role for r in drawn.roles]) for role in set(drawn.roles)}
    fit, test = ((weights[rows[role]], trained.parameters[rows[role]]) for role in ("fit", "test"))
    predictor = fit_predictor(SMALL.model_copy(update={"steps": None}), model, points, *fit)
    others = rivals(model, points, *fit)
    errors = [relative_errors(predictor.predict(test[0], refine=k), test[1]).mean() for k in (0, 2)]
    for name in ("full_model", "linear_datamodel"):
        assert errors[0] < relative_errors(others[name](test[0]), test[1]).mean(), name
    assert errors[1] < errors[0]
    assert predictor.certificate(test[0]) is None
    write_predictor(predictor, tmp_path)
    back = read_predictor(tmp_path)
    torch.testing.assert_close(back(test[0]), predictor(test[0]), rtol=1e-4, atol=1e-5)
