"""A model that failed is in no result: whatever its parameters are, every study says the same."""

import logging
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelpred import ModelPred
from modelpred.errors import InvalidInput
from modelpred.refits import Retraining
from modelpred.studies import STUDIES, memorization
from modelpred.studies.context import Failures
from modelpred.studies.greedy_selection import backwards, no_quota, with_swaps
from modelpred.studies.sampling import UndefinedUtility
from modelpred.studies.semivalues import Semivalue, estimate_values
from tests import games
from tests.studies.conftest import make_context
from tests.studies.small import run_small

# Settings that differ from those of the other tests: more draws where few would all fail.
CHANGED = {
    "edits": {"step": 15, "added": 5},
    "lds": {"subsets": 8},
    "valuation": {"permutations": 6, "truth_permutations": 6, "refine": 0},
    "selection": {"step": 0.5},
}


def run(study, context):
    return run_small(study, context, **CHANGED.get(study, {}))


CONTEXTS = {family: make_context(family) for family in ("logistic", "softmax", "svm", "ridge")}


def failing_rows(weights, *, one_in, which):
    """An arbitrary choice of subsets that fail, never that of all points or of none."""
    rows = torch.as_tensor(weights).long()
    sums = (rows * (1 + torch.arange(rows.shape[1]) ** 2)).sum(dim=1)
    inner = (rows.sum(dim=1) > 0) & ~(rows == 1).all(dim=1)
    return (sums % one_in == which % one_in) & inner


@contextmanager
def training_that_fails(garbage, **how):
    """Retraining that stops at `garbage` for some subsets and says that it did not converge."""
    train = Retraining.train

    def failing(self, weights, **options):
        trained = train(self, weights, **options)
        failed = failing_rows(weights, **how)
        trained.parameters[failed] = garbage
        trained.converged[failed] = False
        return trained

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Retraining, "train", failing)
        yield


class _Broken:
    """A refit whose answer is not finite in one parameter, and garbage in the others."""

    name = "predictor"

    def __init__(self, refit, garbage, how):
        self.refit, self.garbage, self.how = refit, garbage, how

    def __call__(self, weights):
        answers = self.refit(weights).clone()
        failed = failing_rows(weights, **self.how)
        answers[failed] = self.garbage
        answers[failed, 0] = torch.inf
        return answers

    def for_points(self, points):
        return _Broken(self.refit.for_points(points), self.garbage, self.how)


def told(result):
    """All numbers and words of a result but times."""
    tables = {
        name: table.select(~pl.selectors.matches("seconds")).to_dicts()
        for name, table in result.tables.items()
        if name != "break_even"
    }
    return repr((_without_times(result.metrics), tables))


def _without_times(metrics):
    if not isinstance(metrics, dict):
        return metrics
    return {k: _without_times(v) for k, v in metrics.items() if "seconds" not in k}


def outcome(run):
    """What a run says, or the one line with which it refuses."""
    try:
        return run()
    except InvalidInput as refusal:
        return str(refusal).splitlines()


def said(study, known, predictor):
    """What a study says of a predictor beside the context's other refits."""
    context = replace(known, refits={"predictor": predictor, **known.refits})
    return outcome(lambda: told(run(study, context)))


draws = {
    "one_in": st.integers(1, 40),
    "which": st.integers(0, 39),
    "garbages": st.tuples(*[st.floats(-50, 50, allow_nan=False)] * 2),
}
few = settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("study", STUDIES)
@few
@given(family=st.sampled_from(sorted(CONTEXTS)), **draws)
def test_what_a_failed_training_ended_with_is_nowhere(study, family, one_in, which, garbages):
    found = []
    for garbage in garbages:
        with training_that_fails(garbage, one_in=one_in, which=which):
            found.append(said(study, CONTEXTS[family], CONTEXTS[family].truth))
    assert found[0] == found[1]


@pytest.mark.parametrize("study", STUDIES)
@few
@given(family=st.sampled_from(sorted(CONTEXTS)), **draws)
def test_what_is_not_finite_is_nowhere(study, family, one_in, which, garbages):
    known, how = CONTEXTS[family], {"one_in": one_in, "which": which}
    found = [said(study, known, _Broken(known.truth, garbage, how)) for garbage in garbages]
    assert found[0] == found[1]


@pytest.fixture(scope="module")
def fits():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(24, 2))
    score = features[:, 0] + 0.5 * rng.normal(size=24)
    kinds = {"logistic": (score > 0).astype(int), "ridge": score}
    return {
        family: ModelPred(family, subsets=60, progress=False).fit(
            features, y, test=(features[::2], y[::2])
        )
        for family, y in kinds.items()
    }


ASKED = {
    "values": lambda mp, *rows: mp.values(*rows, permutations=6, engine="exact"),
    "suspects": lambda mp, *_: mp.suspects(engine="exact").rows,
    "select": lambda mp, *rows: mp.select(10, *rows, swaps=1, engine="exact"),
    "predictive": lambda mp, *rows: [
        getattr(mp.predictive(rows[0], resamples=20, engine="exact"), name)
        for name in ("mean", "low", "high", "models", "parameters")
    ],
    "memorization": lambda mp, *_: mp.memorization(subsets=20, engine="exact").rows,
    "attribute": lambda mp, *_: mp.attribute(0, engine="exact").rows,
    "explain": lambda mp, *rows: mp.explain(rows[0][0], engine="exact"),
}


@pytest.mark.parametrize("method", ASKED)
@few
@given(family=st.sampled_from(["logistic", "ridge"]), **draws)
def test_no_answer_of_the_estimator_holds_a_failed_model(method, fits, caplog, **drawn):
    mp = fits[drawn["family"]]
    rng = np.random.default_rng(1)
    features = rng.normal(size=(8, 2))
    y = features[:, 0] if drawn["family"] == "ridge" else (features[:, 0] > 0).astype(int)
    found, warned = [], []
    for garbage in drawn["garbages"]:
        caplog.clear()
        with (
            caplog.at_level(logging.WARNING, "modelpred"),
            training_that_fails(garbage, one_in=drawn["one_in"], which=drawn["which"]),
            pl.Config(tbl_rows=-1, tbl_cols=-1, float_precision=12),
        ):
            found.append(outcome(lambda: repr(ASKED[method](mp, features, y))))
        warned.append([record.getMessage() for record in caplog.records])
    assert found[0] == found[1]
    assert warned[0] == warned[1]


def test_how_many_failed_is_counted_and_told(fits, caplog):
    with training_that_fails(0.0, one_in=7, which=3):
        fits["logistic"].memorization(subsets=40, engine="exact")
        (record,) = caplog.records
        context = replace(CONTEXTS["logistic"], failures=Failures())
        memorization.run(memorization.MemorizationConfig(subsets=40), context)
    count, total = (int(word) for word in record.getMessage().split(" models")[0].split(" of "))
    assert 0 < count < total == 40
    counted = context.failures.counts()["retraining"]
    assert counted["models"] >= 80
    assert 0 < counted["failed"] < 40


@settings(max_examples=60, deadline=None)
@given(
    worths=st.lists(st.integers(-5, 5), min_size=4, max_size=9),
    seed=st.integers(0, 99),
    one_in=st.integers(8, 40),
    which=st.integers(0, 39),
    sampler=st.sampled_from(["stratified", "antithetic", "permutation"]),
)
def test_gains_that_need_a_failed_model_are_left_out(worths, seed, one_in, which, sampler):
    """In an additive game each gain is the value, so that leaving some out changes nothing."""
    semivalue = Semivalue(name="beta_shapley", alpha=2)  # has no sum that would hide a bias
    game = games.additive([float(worth) for worth in worths])

    def sometimes(weights):
        return game(weights).masked_fill(
            failing_rows(weights, one_in=one_in, which=which), torch.nan
        )

    def values(utility):
        return estimate_values(
            utility,
            points=len(worths),
            permutations=40,
            generator=np.random.default_rng(seed),
            semivalue=semivalue,
            sampler=sampler,
        ).values

    try:
        found = values(sometimes)
    except UndefinedUtility:
        return
    assert found == pytest.approx(values(game), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    one_in=st.integers(3, 20),
    which=st.integers(0, 19),
    size=st.integers(2, 6),
    bad=st.sampled_from([torch.nan, torch.inf]),
)
def test_a_failed_model_is_never_the_best_choice(seed, one_in, which, size, bad):
    game = games.random_game(7, seed=seed)

    def sometimes(weights):
        failed = failing_rows(weights, one_in=one_in, which=which)
        return game(weights).masked_fill(failed, bad)

    def worth(kept):
        return float(sometimes(kept[None].to(torch.uint8))[0])

    try:
        path = backwards(sometimes, sizes=range(size, 8), quota=no_quota(7), stride=7)
    except UndefinedUtility:
        return
    for after in range(size, 7):
        before = path[after + 1]
        others = [before.clone() for _ in range(int(before.sum()))]
        for place, other in zip(before.nonzero()[:, 0], others, strict=True):
            other[place] = False
        best = max(w for w in map(worth, others) if np.isfinite(w))
        assert worth(path[after]) == best
    swapped = with_swaps(sometimes, path[size], swaps=3, quota=no_quota(7))
    assert worth(swapped) >= worth(path[size])
    assert np.isfinite(worth(swapped))
