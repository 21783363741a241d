"""ModelPred says what the library's own functions say, in the caller's terms."""

import datetime as dt
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import modelpred
from modelpred import InvalidInput, ModelPred
from modelpred.api.settings import subsets_config
from modelpred.dataset.scaling import fit_scaling
from modelpred.predictor import PredictorConfig, fit_predictor
from modelpred.subsets import SubsetsConfig, draw_subsets
from modelpred.targets import points_of, target_model, train_targets
from tests.api.conftest import COLUMNS, ROWS, SMALL, fitted, make_rows


def some_weights(count=6, seed=5):
    return np.random.default_rng(seed).integers(0, 3, size=(count, ROWS))


def test_importing_the_package_alone_imports_nothing_heavy():
    heavy = ("torch", "numpy", "polars", "mlflow", "prefect", "matplotlib", "sklearn")
    code = f"import sys, modelpred; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_package_offers_its_names_and_no_others():
    assert set(modelpred.__all__) <= set(dir(modelpred))
    assert modelpred.ModelPred is ModelPred
    with pytest.raises(AttributeError, match=r"modelpred.*no attribute 'Modelpred'"):
        _ = modelpred.Modelpred


def test_it_is_the_pipelines_own_steps(logistic):
    cells, labels = make_rows(2)
    features = fit_scaling("standardise", torch.from_numpy(cells))(torch.from_numpy(cells))
    points, model = points_of(features, labels, 2), target_model("logistic")
    drawn = draw_subsets(subsets_config(150, 0), points=ROWS, labels=points.labels)
    trained = train_targets(model, points.features, points.labels, drawn.weights, classes=2)
    roles = np.array(drawn.roles)
    fit, watch = (torch.from_numpy(roles == role) for role in ("fit", "validation"))
    predictor = fit_predictor(
        SMALL,
        model,
        points,
        drawn.weights[fit],
        trained.parameters[fit],
        validation=(drawn.weights[watch], trained.parameters[watch]),
    )
    weights = some_weights()
    for refine in (0, 0.5, 2):
        expected = predictor.predict(torch.from_numpy(weights), refine=refine).numpy()
        np.testing.assert_array_equal(logistic.predict_parameters(weights, refine), expected)
    assert logistic.predict_parameters(weights).dtype == np.float64
    early = logistic.predictor.predict(torch.from_numpy(np.asarray(weights)), stages=1).numpy()
    np.testing.assert_array_equal(logistic.predict_parameters(weights, stages=1), early)


def test_numpy_polars_and_torch_give_the_same(logistic):
    cells, labels = make_rows(2)
    names = [f"column {number}" for number in range(COLUMNS)]
    kinds = {
        "polars": (pl.DataFrame(cells, schema=names), pl.Series(labels)),
        "torch": (torch.from_numpy(cells), torch.from_numpy(labels)),
        "lists": (cells.tolist(), labels.tolist()),
    }
    weights = some_weights()
    for cells, labels in kinds.values():
        other = ModelPred(subsets=150, predictor=SMALL, progress=False).fit(cells, labels)
        np.testing.assert_array_equal(
            other.predict_parameters(torch.from_numpy(weights)),
            logistic.predict_parameters(pl.DataFrame(weights)),
        )


@pytest.mark.parametrize(
    "names",
    [("no", "yes"), (False, True), (-7, 12), (2.0, 3.0), ("10", "9")],
    ids=["text", "boolean", "integer", "number", "digits"],
)
def test_classes_keep_their_names_and_their_type(names):
    cells, labels = make_rows(2)
    named = np.array(names)[labels]
    estimator = ModelPred("logistic", subsets=40, predictor=SMALL, progress=False)
    estimator.fit(cells, named)
    assert estimator.classes.tolist() == sorted(names)
    assert estimator.classes.dtype.kind == named.dtype.kind
    predicted = estimator.without([0]).predict(cells)
    assert set(predicted.tolist()) == set(names)
    assert (predicted == named).mean() > 0.6


@pytest.mark.parametrize(("classes", "family"), [(2, "logistic"), (3, "softmax"), (0, "ridge")])
def test_auto_takes_the_family_that_the_labels_call_for(classes, family, request):
    assert request.getfixturevalue(family).model == target_model(family)


def test_retraining_is_scikit_learn(logistic):
    cells, labels = make_rows(2)
    weights = some_weights()
    found = logistic.retrain(weights)
    scaled = (cells - logistic.scaling.offset) / logistic.scaling.divisor
    for row, parameters in zip(weights, found, strict=True):
        trusted = LogisticRegression(C=1.0, tol=1e-10).fit(scaled, labels, sample_weight=row)
        expected = np.append(trusted.coef_, trusted.intercept_)
        # scikit-learn's own solver stops at gradients of about 1e-5.
        np.testing.assert_allclose(parameters, expected, atol=1e-4)


def test_settings_reach_the_family_and_whole_numbers_will_do():
    estimator = fitted("logistic", subsets=20, C=2)
    assert estimator.model.settings == {"C": 2.0}


@pytest.mark.parametrize("family", ["logistic", "svm", "ridge", "softmax"])
def test_the_certificate_holds(family, request):
    estimator = request.getfixturevalue(family)
    weights = some_weights(20)
    true = estimator.retrain(weights)
    for refine in (0, 1):
        bound = estimator.certificate(weights, refine=refine)
        error = np.linalg.norm(estimator.predict_parameters(weights, refine=refine) - true, axis=1)
        # Retraining itself stops at gradients of 1e-6, within 1e-4 of the optimum.
        assert (error <= bound + 1e-4).all()


def test_refinement_ends_at_retraining(logistic, ridge, svm, softmax):
    weights = some_weights()
    for estimator in (logistic, ridge, svm, softmax):
        true = estimator.retrain(weights)
        np.testing.assert_allclose(
            estimator.predict_parameters(weights, refine=10), true, rtol=1e-3, atol=1e-4
        )


def test_fidelity_shows_every_rival_on_every_held_out_design(logistic, softmax):
    for estimator in (logistic, softmax):
        table = estimator.fidelity()
        assert table["method"].unique(maintain_order=True).to_list() == [
            "predictor", "predictor_stage_0", "predictor_stage_1", "predictor_stage_2",
            "predictor_refine_0.5", "predictor_refine_1", "predictor_refine_2",
            "predictor_refine_4",
            "full_model", "influence", "rescaled_influence", "newton_step", "linear_datamodel",
            "retraining", "warm_retraining",
        ]  # fmt: skip
        assert set(table["design"]) == {"uniform", "deletion", "bootstrap"}
        assert "test_loss_error" in table.columns
        assert table is estimator.fidelity()


def test_without_test_rows_losses_are_named_for_what_they_are():
    estimator = ModelPred(subsets=50, predictor=SMALL, progress=False).fit(*make_rows(2))
    assert "pool_loss_error" in estimator.fidelity().columns
    assert estimator.without([0]).compare().on == "training rows"


def test_the_same_seed_gives_the_same_answers_another_seed_others():
    first, second, third = (fitted(subsets=20, seed=seed) for seed in (0, 0, 1))
    weights = some_weights()
    np.testing.assert_array_equal(
        first.predict_parameters(weights), second.predict_parameters(weights)
    )
    assert first.trained_subsets.ids == third.trained_subsets.ids
    assert not torch.equal(first.trained_subsets.weights, third.trained_subsets.weights)


def test_a_config_says_all_of_the_subsets():
    config = SubsetsConfig(
        fit={"uniform": 30}, validation={"uniform": 5}, test={"leave_one_out": ROWS}
    )
    estimator = fitted(subsets=config)
    assert len(estimator.trained_subsets.ids) == 35 + ROWS
    assert set(estimator.fidelity()["design"]) == {"leave_one_out"}


def test_eight_thousand_subsets_are_judged_as_the_pipeline_judges():
    config, usual = subsets_config(8000, 3), SubsetsConfig()
    assert config.fit == {"uniform": 6400, "bootstrap": 1600}
    assert (config.validation, config.test, config.seed) == (usual.validation, usual.test, 3)


def test_rows_that_did_not_converge_are_nan_and_told(logistic, monkeypatch, caplog):
    def failing(*arguments, **options):
        trained = train_targets(*arguments, **options)
        trained.converged[1] = False
        return trained

    monkeypatch.setattr("modelpred.refits.retraining.train_targets", failing)
    found = logistic.retrain(some_weights())
    assert np.isnan(found).all(axis=1).tolist() == [False, True, False, False, False, False]
    assert "1 of 6 models did not converge" in caplog.text


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"target": "forest"}, "unknown target model 'forest'; known: auto, logistic"),
        ({"scaling": "log"}, "unknown scaling 'log'; known: standardise"),
        ({"subsets": 5}, "subsets is 5; expected 20 or more"),
        ({"target": "svm", "hidden": 3}, "svm has no setting 'hidden'; known: tolerance, C"),
        ({"subset": 3}, "no setting 'subset'"),
        ({"C": -1.0}, "C is -1: Input should be greater than 0"),
        ({"target": "mlp", "hidden": 0}, "hidden is 0"),
    ],
)
def test_wrong_settings_are_refused(options, told):
    with pytest.raises(InvalidInput, match=told):
        ModelPred(**options)


CELLS, LABELS = make_rows(2)
HOLES = CELLS.copy()
HOLES[3, 1] = np.nan


@pytest.mark.parametrize(
    ("target", "cells", "labels", "told"),
    [
        ("auto", CELLS[0], LABELS, r"X has shape \[3\]"),
        ("auto", HOLES, LABELS, r"1 missing or not finite value \(first in row 3, column 1\)"),
        ("auto", pl.DataFrame({"a": [[1], [2]]}), [0, 1], "X: column 'a' holds List"),
        ("auto", pl.DataFrame({"a": [1.0, np.inf]}), [0, 1], "X: column 'a' holds inf in row 1"),
        ("auto", pl.DataFrame({"row_id": [1.0, 2.0]}), [0, 1], "pass it as ids="),
        ("auto", [["x"], ["y"]], [0, 1], "X holds <U1, expected numbers"),
        ("auto", CELLS, LABELS[1:], "y has 39 labels for 40 rows"),
        ("auto", CELLS, CELLS, r"y has shape \[40, 3\]"),
        ("auto", CELLS, np.zeros(ROWS, dtype=int), "one class"),
        ("auto", CELLS, [None, *LABELS[1:].tolist()], "1 missing or not finite labels"),
        ("auto", CELLS, ["a", *LABELS[1:].tolist()], "y mixes integer and text labels"),
        ("auto", CELLS, pl.Series([None, *LABELS[1:].tolist()]), "1 missing or not finite labels"),
        ("ridge", CELLS, LABELS.astype(str), "text labels, expected numbers"),
        ("ridge", CELLS, np.full(ROWS, np.nan), "40 missing or not finite labels"),
        ("logistic", CELLS, CELLS[:, 0], "use target='ridge'"),
        (
            "logistic",
            CELLS,
            np.arange(ROWS) % 3,
            "logistic does not fit the label, which has 3 classes",
        ),
    ],
)
def test_wrong_tables_and_labels_are_refused(target, cells, labels, told):
    with pytest.raises(InvalidInput, match=told):
        ModelPred(target, subsets=20, predictor=SMALL, progress=False).fit(cells, labels)


def test_wrong_weights_and_questions_before_the_fit_are_refused(logistic):
    with pytest.raises(InvalidInput, match=r"shape \[40\], expected \[subsets, points\]"):
        logistic.predict_parameters(np.ones(ROWS))
    for ask in (logistic.predict_parameters, logistic.retrain, logistic.certificate):
        with pytest.raises(InvalidInput, match="39"):
            ask(np.ones((2, ROWS - 1)))
        with pytest.raises(InvalidInput):
            ask(-np.ones((2, ROWS)))
    with pytest.raises(InvalidInput, match="refine is -1"):
        logistic.predict_parameters(np.ones((1, ROWS)), refine=-1)
    with pytest.raises(InvalidInput, match="not fitted; call fit"):
        ModelPred().predict_parameters(np.ones((1, ROWS)))


def test_test_rows_must_fit_the_fit():
    estimator = ModelPred(subsets=20, predictor=SMALL, progress=False)
    with pytest.raises(InvalidInput, match="X_test has 2 columns but the fit had 3"):
        estimator.fit(CELLS, LABELS, test=(CELLS[:, :2], LABELS))
    with pytest.raises(InvalidInput, match="y_test holds '5', expected one of the classes"):
        estimator.fit(CELLS, LABELS, test=(CELLS, LABELS + 5))


def test_ids_must_be_unique():
    estimator = ModelPred(subsets=20, predictor=SMALL, progress=False)
    with pytest.raises(InvalidInput, match="'a' is the id of several rows"):
        estimator.fit(CELLS, LABELS, ids=["a"] * ROWS)
    with pytest.raises(InvalidInput, match="2 ids for 40 rows"):
        estimator.fit(CELLS, LABELS, ids=["a", "b"])


def test_progress_is_shown_on_a_terminal(monkeypatch, capfd):
    def fit(*, progress):
        estimator = ModelPred(subsets=20, predictor=SMALL, progress=progress)
        assert estimator.fit(CELLS, LABELS).predictor is not None
        return capfd.readouterr().err

    assert fit(progress=True) == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert "fitting" in fit(progress=True)
    assert fit(progress=False) == ""


def test_columns_of_words_dates_and_gaps_are_read_as_the_fit_read_them(tmp_path):
    generator = np.random.default_rng(0)
    table = pl.DataFrame(
        {
            "age": [None, *generator.integers(18, 80, 59).tolist()],
            "work": generator.choice(["office", "shop", None], 60).tolist(),
            "since": [dt.date(2024, 1, 1) + dt.timedelta(days=day) for day in range(60)],
        }
    )
    labels = ["no", "yes"] * 30
    estimator = ModelPred(subsets=40, progress=False, predictor=PredictorConfig(epochs=1))
    estimator.fit(table, labels, test=(table.head(10), labels[:10]))
    estimator.save(tmp_path / "saved")
    again = ModelPred.load(tmp_path / "saved")
    later = pl.DataFrame({"since": ["2024-01-05"], "work": ["never seen"], "age": [40]})
    for either in (estimator, again):
        model = either.without([3])
        assert model.predict_proba(later).shape == (1, 2)
        with pytest.raises(InvalidInput, match="X: column 'age' holds 'old' in row 0, expected a"):
            model.predict(later.with_columns(age=pl.lit("old")))
    np.testing.assert_allclose(
        estimator.without([3]).predict_proba(later),
        again.without([3]).predict_proba(later),
        atol=1e-5,
    )


def test_a_notebook_gets_one_line_that_renews_itself(monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert ModelPred(subsets=20, predictor=SMALL).fit(CELLS, LABELS).predictor is not None
    line = capfd.readouterr().err
    assert "\rtraining: " in line
    assert "fitting, validation error" in line
    assert line.count("\n") == 1
