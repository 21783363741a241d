"""The bound from one gradient is never below the true distance, wherever the parameters are."""

import math

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from modelpred.targets import Points, certificate, target_model, train_targets
from modelpred.targets.certificate import (
    _best_intercepts,
    _extremes,
    _global_move,
    _intercept_curvature,
    _local_move,
    _newton_step,
    _stiffness,
    distance_bound,
)
from tests.targets.conftest import FAMILIES, pool

# A failing example names its settings already; shrinking its seed would take minutes.
WITHOUT_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
CONVEX = tuple(name for name in FAMILIES if name != "mlp")


def trained(name, *, spread=1.0, strength=0.7, seed=0, subsets=12):
    """A family, its points stretched by `spread`, and weights 0..3 with parameters to 1e-10."""
    classes, given = FAMILIES[name]
    points = pool(classes, seed=seed)
    points = Points(spread * points.features, points.labels, classes)
    model = target_model(name.split("-")[0], **{**given, "C": strength})
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randint(0, 4, (subsets, 40), generator=generator).double()
    weights[:, : max(classes, 1)] = 1
    targets = train_targets(
        model, points.features, points.labels, weights, tolerance=1e-10, classes=classes
    )
    # Rounding keeps some subsets of wide points and a large C from 1e-10: they are no truth.
    done = targets.converged
    return model, points, weights[done], targets.parameters[done]


@pytest.mark.parametrize("name", CONVEX)
@settings(max_examples=8, deadline=None, phases=WITHOUT_SHRINKING)
@given(
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([0.1, 1.0, 3.0]),
    strength=st.sampled_from([0.1, 1.0, 4.0]),
    distance=st.floats(-6, 1.5),
)
def test_the_bound_holds_for_any_pool_strength_and_distance(name, seed, spread, strength, distance):
    model, points, weights, true = trained(name, spread=spread, strength=strength, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    moved = torch.randn(true.shape, generator=generator, dtype=torch.float64)
    wrong = true + 10**distance * moved
    bound = model.distance_bound(wrong, weights, points)
    assert bool((bound >= (wrong - true).norm(dim=1)).all())


@pytest.mark.parametrize("name", CONVEX)
def test_the_bound_vanishes_at_the_optimum(name):
    model, points, weights, true = trained(name)
    # A gradient of 1e-10, times the reach of the rows (about 5) and its way to the intercept.
    assert float(model.distance_bound(true, weights, points).max()) < 1e-6


@pytest.mark.parametrize("name", ["logistic", "softmax", "ridge"])
def test_wrong_intercepts_alone_are_measured_exactly(name):
    """Of right coefficients the best intercepts are the optimum's, so nothing is lost."""
    model, points, weights, true = trained(name)
    theta = true.unflatten(1, (-1, 7)).clone()
    theta[:, :, -1] += torch.linspace(-2, 2, theta.shape[1] + 1, dtype=torch.float64)[1:]
    wrong = model.representative(theta.flatten(1), 6)
    bound = model.distance_bound(wrong, weights, points)
    torch.testing.assert_close(bound, (wrong - true).norm(dim=1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["logistic", "softmax"])
def test_equal_shifts_and_saturated_scores_do_not_stop_the_intercepts(name):
    model, points, weights, true = trained(name)
    coefficients = 30 * true.unflatten(1, (-1, 7)).transpose(0, 1)[..., :-1]
    moved = coefficients @ points.features.T
    start = 100 * torch.ones(moved.shape[:2], dtype=torch.float64)
    best, left = _best_intercepts(model, moved, start, model.C * weights, points)
    assert float(left.max()) < 1e-8
    assert bool(torch.isfinite(best).all())


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("name", ["logistic", "softmax"])
def test_a_search_that_ends_early_says_what_is_left_and_the_bound_holds(name, steps, monkeypatch):
    monkeypatch.setattr(certificate, "PROFILE_STEPS", steps)
    model, points, weights, true = trained(name, strength=4.0)
    wrong = model.representative(true + 0.3, 6)
    theta = wrong.unflatten(1, (-1, 7)).transpose(0, 1)
    moved = theta[..., :-1] @ points.features.T
    best, left = _best_intercepts(model, moved, theta[..., -1], model.C * weights, points)
    found = torch.cat([theta[..., :-1], best[..., None]], 2).transpose(0, 1).flatten(1)
    gradient = model.gradient(found, weights, points).unflatten(1, (-1, 7))[..., -1]
    torch.testing.assert_close(left, gradient.norm(dim=1), rtol=1e-9, atol=1e-9)
    bound = model.distance_bound(wrong, weights, points)
    assert bool((bound >= (wrong - true).norm(dim=1)).all())


@pytest.mark.parametrize("name", [name for name in CONVEX if FAMILIES[name][1].get("intercept")])
def test_with_penalised_intercepts_the_bound_is_the_length_of_the_gradient(name):
    model, points, weights, true = trained(name)
    wrong = true + 0.1
    length = model.gradient(wrong, weights, points).norm(dim=1)
    expected = length + 1e-9 * length + 1e-9 * (1 + wrong.norm(dim=1))
    bound = distance_bound(model, wrong, weights, points)
    torch.testing.assert_close(bound, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize(("steps", "spread"), [(1, 1.0), (2, 0.1), (60, 1.0)])
@pytest.mark.parametrize("name", ["logistic", "softmax", "ridge"])
def test_the_bound_is_the_formula_of_the_text(name, steps, spread, monkeypatch):
    """One subset after another, from matrices of every row; the parts have tests of their own."""
    monkeypatch.setattr(certificate, "PROFILE_STEPS", steps)
    model, points, weights, true = trained(name, spread=spread)
    wrong = model.representative(true + 1e-4 * torch.randn(true.shape, generator=draws()), 6)
    wrong[1::2] = wrong[1::2] + 1e-3  # equal shifts of all outputs, too
    bounds = distance_bound(model, wrong, weights, points)
    theta = wrong.unflatten(1, (-1, 7)).transpose(0, 1)
    moved = theta[..., :-1] @ points.features.T
    best, left = _best_intercepts(model, moved, theta[..., -1], model.C * weights, points)
    for at, (table, counts) in enumerate(zip(theta.transpose(0, 1), weights, strict=True)):
        expected = bound_by_rows(model, table, counts, points, best=best[:, at], left=left[at])
        torch.testing.assert_close(bounds[at], expected, rtol=1e-10, atol=1e-12)


def bound_by_rows(model, table, counts, points, *, best, left):
    """The bound of a subset from [outputs, features + 1] parameters and their best intercepts."""
    lengths = points.features.norm(dim=1)
    scores = (table[:, :-1] @ points.features.T + best[:, None])[:, None]
    rows = model.C * counts[:, None, None] * second_derivatives(model, scores)
    values = torch.linalg.eigvalsh(rows.sum(0))[int(model.shift_free) :]
    coupling = torch.einsum("pjk,pf->jkf", rows, points.features).norm()
    size = model.score_curvature(scores, points.labels, model.C * counts[None])[0].sum((0, 1))
    spread = (values[-1] * (size * lengths.square()).sum()).sqrt()
    missing = 2 * left / values[0]
    if missing * model.curvature_drift >= 1e-3:
        return torch.tensor(math.inf, dtype=torch.float64)
    found = torch.cat([table[:, :-1], best[:, None]], 1)
    gradient = model.gradient(found.reshape(1, -1), counts[None], points).reshape(table.shape)
    error = gradient[:, :-1].norm() + missing * (coupling + spread)
    reach = lengths[counts > 0].max()[None]
    given = {"reach": reach, "coupling": coupling[None], "spread": spread[None]}
    move = torch.minimum(
        _local_move(model, error[None], **given, least=values[:1], outputs=len(best)),
        _global_move(model, error[None], reach, outputs=len(best)),
    )[0]
    if model.shift_free:
        best = best - best.mean()
    way = (table[:, -1] - best).norm() + missing + move
    return (error**2 + way**2).sqrt() * (1 + 1e-9) + 1e-9 * (1 + table.norm())


def draws():
    return torch.Generator().manual_seed(0)


def second_derivatives(model, scores):
    """J of every row by its definition, [rows, outputs, outputs]; scores [outputs, 1, rows]."""
    if model.regression:
        return torch.ones(scores.shape[2], 1, 1, dtype=torch.float64)
    chances = model.probabilities(scores.permute(1, 2, 0))[0]
    if len(scores) == 1:
        return chances.prod(-1)[:, None, None]
    return torch.diag_embed(chances) - chances[..., :, None] * chances[..., None, :]


def test_near_the_optimum_the_bound_uses_the_curvature_there():
    """Far rows are saturated: they hardly move the intercept, but their reach is long."""
    model, points, weights, true = trained("logistic")
    far = points.features.clone()
    far[-1] *= 200 * (1 if points.labels[-1] else -1)
    points = Points(far, points.labels, 2)
    true = train_targets(model, far, points.labels, weights, tolerance=1e-10).parameters
    wrong = true + 1e-6
    bound = distance_bound(model, wrong, weights, points)
    error = model.gradient(wrong, weights, points)[:, :-1].norm(dim=1)
    reach = torch.where(weights > 0, far.norm(dim=1), 0.0).amax(1)
    assert bool((bound <= 0.5 * error * reach).any())


def test_subsets_without_an_optimum_have_no_bound(family):
    model, points = family
    weights = torch.zeros(1, 40, dtype=torch.float64)
    size = model.parameter_count(6, points.classes)
    if model.optimum is None:
        assert model.name == "mlp"
        return
    bound = model.optimum.distance_bound(weights.new_zeros(1, size), weights, points)
    assert math.isinf(float(bound[0]))


def test_a_batch_is_the_loop(family, counts):
    model, points = family
    if model.optimum is None:
        return
    weights = counts(points, 50)
    size = model.parameter_count(6, points.classes)
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(50, size, generator=generator, dtype=torch.float64)
    together = model.distance_bound(theta, weights, points)
    alone = [
        model.distance_bound(theta[row : row + 1], weights[row : row + 1], points)
        for row in range(0, 50, 7)
    ]
    # The best intercepts are found to 1e-11 of the total weight, in one step more or less.
    torch.testing.assert_close(together[::7], torch.cat(alone), rtol=1e-8, atol=1e-8)


# The parts of the bound, beside their definitions in the module's text: the bound itself is often
# so far above the distance that it would hold in spite of a wrong part.


@pytest.mark.parametrize("outputs", [1, 2, 4])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_eigenvalues_leave_out_equal_shifts(outputs, seed):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(3, outputs, 6, generator=generator, dtype=torch.float64)
    least, most = _extremes(root @ root.mT, shift_free=False)
    expected = torch.linalg.eigvalsh(root @ root.mT)
    torch.testing.assert_close(torch.stack([least, most]), expected[:, [0, -1]].T)
    if outputs > 1:
        root = root - root.mean(1, keepdim=True)  # equal shifts change nothing
        least, most = _extremes(root @ root.mT, shift_free=True)
        expected = torch.linalg.eigvalsh(root @ root.mT)
        torch.testing.assert_close(torch.stack([least, most]), expected[:, [1, -1]].T)


@pytest.mark.parametrize("outputs", [1, 2, 4])
@pytest.mark.parametrize("shift_free", [False, True])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_newton_step_solves_with_the_stiffness_up_to_equal_shifts(outputs, shift_free, seed):
    if outputs == 1 and shift_free:
        return
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(3, outputs, 6, generator=generator, dtype=torch.float64)
    gradient = torch.randn(3, outputs, generator=generator, dtype=torch.float64)
    if shift_free:
        root, gradient = (
            root - root.mean(1, keepdim=True),
            gradient - gradient.mean(1, keepdim=True),
        )
    stiffness = root @ root.mT
    step = _newton_step(stiffness, gradient.T, shift_free=shift_free).T
    expected = (torch.linalg.pinv(stiffness, hermitian=True) @ gradient[..., None])[..., 0]
    if shift_free:
        step = step - step.mean(1, keepdim=True)
    torch.testing.assert_close(step, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", ["logistic", "softmax", "ridge"])
def test_curvatures_of_the_intercepts_are_sums_over_rows(name):
    model, points, weights, true = trained(name)
    theta = true.unflatten(1, (-1, points.features.shape[1] + 1))
    scores = (theta[..., :-1] @ points.features.T + theta[..., -1:]).transpose(0, 1)
    scale = model.C * weights
    curvature = model.score_curvature(scores, points.labels, scale)
    stiffness, coupling = _intercept_curvature(model, curvature, points.features)

    chances = model.probabilities(scores.permute(1, 2, 0)) if name != "ridge" else None
    if name == "ridge":
        rows = torch.ones(len(weights), len(points.labels), 1, 1, dtype=torch.float64)
    elif name == "logistic":
        rows = chances.prod(-1)[..., None, None]
    else:
        rows = torch.diag_embed(chances) - chances[..., :, None] * chances[..., None, :]
    rows = scale[..., None, None] * rows
    torch.testing.assert_close(stiffness, rows.sum(1))
    torch.testing.assert_close(_stiffness(model, curvature), rows.sum(1))
    products = torch.einsum("spjk,pf->sjkf", rows, points.features)
    torch.testing.assert_close(coupling, products.square().sum((1, 2, 3)).sqrt())


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_stiffness_is_a_sum_over_rows_for_any_number_of_outputs(classes):
    model, points = target_model("softmax"), pool(classes)
    scores = torch.randn(classes, 1, 40, generator=draws(), dtype=torch.float64)
    curvature = model.score_curvature(scores, points.labels, torch.ones(1, 40, dtype=torch.float64))
    expected = second_derivatives(model, scores).sum(0)
    torch.testing.assert_close(_stiffness(model, curvature)[0], expected)


@pytest.mark.parametrize(("name", "outputs"), [("logistic", 1), ("softmax", 2), ("softmax", 3)])
@settings(max_examples=60, deadline=None)
@given(
    error=st.floats(-5, -1),
    reach=st.floats(0.1, 5),
    coupling=st.floats(0, 5),
    spread=st.floats(0.1, 5),
    least=st.floats(0.1, 5),
)
def test_the_local_move_is_that_of_the_least_swing_that_covers_itself(name, outputs, **drawn):
    model = target_model(name)
    error = 10 ** drawn.pop("error")
    reach, coupling, spread, least = (
        drawn[name] for name in ("reach", "coupling", "spread", "least")
    )

    def rate(swing):
        return math.exp(swing) * (coupling + math.expm1(swing) * spread) / least

    def apart(swing):
        return math.sqrt(2 if outputs > 1 else 1) * error * (reach + rate(swing))

    numbers = {key: torch.tensor([value], dtype=torch.float64) for key, value in drawn.items()}
    found = float(
        _local_move(model, torch.tensor([error], dtype=torch.float64), **numbers, outputs=outputs)[
            0
        ]
    )
    swing = 0.0
    for _ in range(1000):
        swing = min(apart(swing), 4.0)
    if apart(1.05 * swing) > 1.05 * swing or swing > 3:
        assert found == math.inf
    elif found < math.inf:  # the search may end early
        # As many steps from below as the search takes, and a twentieth more.
        assert error * rate(swing) <= found <= error * rate(1.05 * swing) * (1 + 1e-12)
    else:
        assert apart(0.8 * swing) > 0.75 * swing  # it converges slowly there


def test_ridge_moves_by_its_constant_curvature_and_classes_by_their_number():
    error, two = torch.tensor([0.5]), torch.tensor([2.0])
    given = {
        "reach": two,
        "coupling": torch.tensor([3.0]),
        "spread": two,
        "least": torch.tensor([4.0]),
    }
    assert float(_local_move(target_model("ridge"), error, **given, outputs=1)) == 0.5 * 3 / 4
    for name, outputs, expected in (
        ("logistic", 1, 0.5 * 2),
        ("ridge", 1, 0.5 * 2),
        ("softmax", 2, math.sqrt(2) * math.sqrt(2) / 2 * 0.5 * 2),
        ("softmax", 4, 3 * math.sqrt(2) * math.sqrt(4) / 2 * 0.5 * 2),
    ):
        move = _global_move(target_model(name), error, two, outputs=outputs)
        assert float(move) == pytest.approx(expected)
