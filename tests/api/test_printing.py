"""What is printed is short and whole, and names only what exists."""

import html
import inspect
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from modelpred import InvalidInput, ModelPred
from modelpred.cli import app
from modelpred.wording import cell_words
from tests.api.conftest import ROWS, make_rows

CELLS, LABELS = make_rows(2, 10, seed=3)
RESULTS = {
    "ModelPred": lambda mp: mp,
    "trained_subsets": lambda mp: mp.trained_subsets,
    "without": lambda mp: mp.without([1]),
    "retrained": lambda mp: mp.without([1]).retrained(),
    "with_points": lambda mp: mp.with_points(CELLS[:1], LABELS[:1]),
    "compare": lambda mp: mp.without([1]).compare(),
    "predictive": lambda mp: mp.predictive(CELLS, resamples=5),
    "memorization": lambda mp: mp.memorization(subsets=30),
    "attribute": lambda mp: mp.attribute(0),
    "explain": lambda mp: mp.explain(CELLS[0]),
    "engine_used": lambda mp: mp.without([1]).compare() and mp.engine_used,
}
AS_TEXT = ("ModelPred", "trained_subsets")  # a notebook shows their repr


@pytest.mark.parametrize("name", sorted(RESULTS))
def test_results_are_printed_in_a_few_lines(name, logistic):
    result = RESULTS[name](logistic)
    for told in (str(result), repr(result)):
        assert 1 <= len(told.splitlines()) <= 12
        assert len(told) < 1000
        assert "tensor(" not in told
        assert " 1 rows" not in told
    if name not in AS_TEXT:
        assert html.escape(str(result)) in result._repr_html_()


def test_what_is_not_fitted_is_printed_too():
    assert repr(ModelPred("svm")) == "ModelPred('svm'), not fitted"


def test_fidelity_is_printed_whole(logistic):
    table = logistic.fidelity()
    lines = str(table).splitlines()
    assert all(name in lines[2 if "shape" in lines[0] else 1] for name in table.columns)
    assert sum(any(method in line for method in table["method"]) for line in lines) == len(table)


def test_signatures_in_help_have_short_names_of_types():
    for name, member in inspect.getmembers(ModelPred, callable):
        if name[0] != "_":
            assert "numpy." not in str(inspect.signature(member)), name


def test_help_names_only_what_exists():
    public = {name: member for name, member in inspect.getmembers(ModelPred) if name[0] != "_"}
    texts = [inspect.getdoc(member) or "" for member in (ModelPred, *public.values())]
    known = {
        "pool_loss_error",
        "break_even",
        "largest_row_norm",
        "blocks",
        "plot",
        "to_pandas",
        "write_csv",
        "stop",
        "target__C",
        *public,
    }  # columns, a value, methods of results, a parameter of an estimator
    for member in (ModelPred, *filter(inspect.isfunction, public.values())):
        known |= set(inspect.signature(member).parameters)
    named = re.findall(r"`([a-z]\w*_\w*|[a-z]\w*(?=\(\)`))", "\n".join(texts))
    assert named
    assert not [name for name in named if name not in known]


def test_a_missing_cell_is_called_missing():
    assert cell_words(None) == "missing"


def test_the_version_is_told():
    found = CliRunner().invoke(app, ["--version"])
    assert found.exit_code == 0
    assert re.fullmatch(r"modelpred \d+\.\d+\.\d+.*\n", found.output)


@pytest.mark.parametrize("family", ["logistic", "softmax", "svm", "ridge"])
def test_without_nearly_everything_has_an_answer(family, request, caplog):
    mp = request.getfixturevalue(family)
    draws = np.random.default_rng(len(family))
    for left in (0, 1, 2, 3):
        gone = draws.permutation(ROWS)[left:]
        caplog.clear()
        edited = mp.without(gone)
        assert np.isfinite(edited.parameters).all()
        exact = mp.retrain(_weights(gone))
        assert np.isfinite(exact).all()
        if mp.model.regression:
            continue
        classes = set(mp._fitted.dataset.labels.numpy()[np.setdiff1d(np.arange(ROWS), gone)])
        assert bool(caplog.text) == (len(classes) < len(mp.classes))
        if left == 0:
            assert "no row is left" in caplog.text
        elif len(classes) < len(mp.classes):
            assert "is left to learn from" in caplog.text
    with pytest.raises(InvalidInput):
        mp.without([*range(ROWS), ROWS])


def _weights(gone):
    weights = np.ones((1, ROWS))
    weights[0, gone] = 0
    return weights


def test_the_old_name_of_the_trained_subsets_is_deprecated(logistic):
    with pytest.warns(DeprecationWarning, match="use trained_subsets"):
        ids = logistic.bank.ids
    assert ids == logistic.trained_subsets.ids
