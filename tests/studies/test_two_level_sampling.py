"""Values of groups by an expansion and its error: unbiased whatever the approximation, exact for squares."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from modelpred.errors import InvalidInput
from modelpred.refits import Retraining
from modelpred.studies.context import StudyContext
from modelpred.studies.group_expansion import GroupExpansion
from modelpred.studies.regression_sampling import ROUND
from modelpred.studies.sampling import Game
from modelpred.studies.semivalues import Semivalue, enumerate_values, estimate_values
from modelpred.studies.two_level_sampling import TwoLevelSampler
from modelpred.studies.utility import Approximation, game_of
from modelpred.studies.valuation import JointGame
from modelpred.targets import points_of, target_model
from modelpred.targets.points import class_counts
from tests import games

SEMIVALUES = ("shapley", "banzhaf", "beta_shapley")
FAMILIES = {"ridge": 0, "ridge_classifier": 2, "logistic": 2, "svm": 2, "softmax": 3}


def grouped(family, *, groups, rows, features, seed, weighted=False):
    """A context, and the members of groups of unequal sizes with different label noise."""
    draws = np.random.default_rng(seed)
    cells = draws.normal(size=(rows + 60, features))
    of_row = np.concatenate([np.arange(groups), draws.integers(groups, size=rows - groups)])
    noise = np.append(draws.uniform(0.2, 2, size=groups), 0.5)
    of_all = np.append(of_row, np.full(60, groups))
    score = cells @ draws.normal(size=features) + noise[of_all] * draws.normal(size=rows + 60)
    classes = FAMILIES[family]
    labels = score if not classes else np.digitize(score, np.linspace(-1, 1, classes + 1)[1:-1])
    factors = draws.uniform(0.5, 2, size=rows) if weighted else None
    pool = points_of(cells[:rows], labels[:rows], classes, sample_weight=factors)
    truth = Retraining(target_model(family, C=0.5), pool, tolerance=1e-8)
    test = points_of(cells[rows:], labels[rows:], classes)
    context = StudyContext(truth, test, {truth.name: truth}, tuple(map(str, range(rows))))
    members = torch.from_numpy((np.arange(groups)[:, None] == of_row).astype(np.uint8))
    return context, members


def subsets_of(groups, seed, count=6):
    return torch.from_numpy(np.random.default_rng(seed).integers(2, size=(count, groups))).byte()


def expanded(context, members):
    full = context.truth(torch.ones(1, context.pool))[0]
    return GroupExpansion(context.model, context.points, members, full)


@given(
    st.sampled_from(["ridge", "ridge_classifier"]),
    st.integers(2, 9),
    st.integers(1, 5),
    st.booleans(),
    st.integers(0, 999),
)
@settings(max_examples=15, deadline=None)
def test_models_of_squared_losses_are_those_of_retraining(family, groups, features, weighted, seed):
    context, members = grouped(
        family, groups=groups, rows=8 * groups, features=features, seed=seed, weighted=weighted
    )
    weights = subsets_of(groups, seed)
    exact = context.truth((weights.float() @ members.float()).byte())
    torch.testing.assert_close(expanded(context, members)(weights), exact, atol=1e-6, rtol=1e-5)


@given(st.sampled_from(sorted(FAMILIES)), st.integers(3, 8), st.booleans(), st.integers(0, 999))
@settings(max_examples=12, deadline=None)
def test_expansions_are_one_newton_step_from_the_model_of_all_rows(family, groups, weighted, seed):
    """The step times the Hessian by autograd is minus the gradient by autograd."""
    context, members = grouped(
        family, groups=groups, rows=10 * groups, features=3, seed=seed, weighted=weighted
    )
    full = context.truth(torch.ones(1, context.pool))[0]
    weights = (torch.eye(groups) + torch.eye(groups).roll(1, 0)).byte()
    for subset, found in zip(weights, expanded(context, members)(weights), strict=True):
        rows = (subset.double() @ members.double())[None]
        if bool(context.model.without_optimum(class_counts(rows, context.points))[0]):
            continue

        def objective(theta, rows=rows):
            return context.model.objective(theta[None], rows, context.points)[0]

        step = torch.func.jacrev(torch.func.grad(objective))(full) @ (found - full)
        torch.testing.assert_close(step, -torch.func.grad(objective)(full), atol=1e-5, rtol=1e-5)


@given(st.sampled_from(["logistic", "softmax"]), st.integers(0, 99))
@settings(max_examples=8, deadline=None)
def test_subsets_without_an_optimum_have_the_prior_model(family, seed):
    context, _ = grouped(family, groups=2, rows=60, features=2, seed=seed)
    labels = context.points.labels
    members = torch.stack([labels == 0, labels != 0]).byte()
    weights = torch.eye(2).byte()[: 1 if family == "softmax" else 2]
    game = JointGame(game_of(context.truth, context), members)
    near = game.approximation().utility(weights)
    torch.testing.assert_close(near, game(weights), atol=1e-6, rtol=1e-6)


@given(st.sampled_from(SEMIVALUES), st.integers(3, 8), st.integers(0, 999), st.floats(0, 1))
@settings(max_examples=15, deadline=None)
def test_values_are_unbiased_whatever_the_approximation(name, players, seed, share):
    game, other = games.random_game(players, seed=seed), games.random_game(players, seed=seed + 1)

    def near(weights):
        return (1 - share) * game(weights) + share * other(weights)

    kind = Semivalue(name=name)
    counted = Game(game, points=players, total=0, progress=lambda *_: None)
    sampler = TwoLevelSampler(
        kind.size_probabilities(players), counted.ends(), approximation=near,
        evaluations=0, times=10, generator=np.random.default_rng(seed),
    )  # fmt: skip
    sampler.draw(60, counted)
    assert counted.done == 2 + sampler.evaluations(60) == 2 + 60 * ROUND
    rows = sampler.estimates()
    errors = rows.std(axis=0, ddof=1) / np.sqrt(len(rows))
    exact = enumerate_values(game, points=players, semivalue=kind).values
    assert (np.abs(rows.mean(axis=0) - exact) <= 5.5 * errors + 1e-9).all()


@pytest.mark.parametrize(
    ("family", "name"), [("softmax", "shapley"), *(("logistic", name) for name in SEMIVALUES)]
)
def test_standard_errors_cover_the_values_of_retraining(family, name, monkeypatch):
    """Of 30 runs, about nine tenths of all values are within the 90% interval."""
    monkeypatch.setattr("modelpred.studies.samplers.NEAR_COST", 0.1)
    context, members = grouped(family, groups=9, rows=180, features=3, seed=3)
    kind, game = Semivalue(name=name), JointGame(game_of(context.truth, context), members)
    every = ((torch.arange(2**9)[:, None] >> torch.arange(9)) & 1).byte()
    known, near = game(every), game.approximation().utility(every)

    class Known:
        """The game with its utilities computed once."""

        def __call__(self, weights, of=known):
            return of[(weights.long() << torch.arange(9)).sum(dim=1)]

        def approximation(self):
            return Approximation(lambda weights: self(weights, near), parameters=4)

    exact = enumerate_values(Known(), points=9, semivalue=kind).values
    within = []
    for seed in range(30):
        found = estimate_values(
            Known(), points=9, rows=180, permutations=20, semivalue=kind, sampler="two_level",
            generator=np.random.default_rng(seed),
        )  # fmt: skip
        assert found.sampler == "two_level"
        errors = found.standard_errors * student.ppf(0.95, len(found.estimates) - 1)
        within.append(np.abs(found.values - exact) < errors)
    assert 0.83 < np.mean(within) < 0.96


@given(st.integers(20, 40), st.integers(0, 99))
@settings(max_examples=3, deadline=None)
def test_auto_takes_two_levels_for_homogeneous_groups_of_many_rows(groups, seed):
    context, _ = grouped("logistic", groups=2, rows=6000, features=4, seed=seed)
    members = (torch.arange(groups)[:, None] == torch.arange(6000) % groups).byte()
    game = JointGame(game_of(context.truth, context), members)
    common = {"points": groups, "rows": 6000, "generator": np.random.default_rng(seed)}
    found = estimate_values(game, permutations=20, sampler="auto", **common)
    plain = estimate_values(game, permutations=20, sampler="regression", **common)
    assert found.sampler == "two_level"
    errors = np.hypot(found.standard_errors, plain.standard_errors)
    assert (np.abs(found.values - plain.values) < 5.5 * errors).all()


def test_groups_of_few_rows_or_of_single_ones_have_no_expansion():
    context, members = grouped("logistic", groups=20, rows=100, features=2, seed=0)
    game = game_of(context.truth, context)
    common = {"permutations": 4, "rows": 100, "generator": np.random.default_rng(0)}
    for utility, players in ((JointGame(game, members), 20), (game, 100)):
        with pytest.raises(
            InvalidInput, match="two_level is for groups of rows, at least 80 times"
        ):
            estimate_values(utility, points=players, sampler="two_level", **common)
    assert estimate_values(
        JointGame(game, members), points=20, sampler="auto", **common
    ).sampler == "regression"  # fmt: skip
    mlp = target_model("mlp", hidden=2, steps=1)
    truth = Retraining(mlp, context.points)
    other = StudyContext(truth, context.test_points, {truth.name: truth}, context.row_ids)
    assert JointGame(game_of(truth, other), members).approximation() is None
