"""Newton directions: every move against the textbook formula in float64, and the laws of a set function."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.errors import InvalidInput
from modelpred.metrics import relative_errors
from modelpred.predictor import (
    PredictorConfig,
    fit_predictor,
    newton_inverse,
    newton_products,
    read_predictor,
    write_predictor,
)
from modelpred.predictor import newton_path as paths
from modelpred.predictor.newton_inverse import Inverse, inverse_hessian
from modelpred.predictor.newton_leverage import leverage_corrected
from modelpred.predictor.newton_network import NewtonNetwork, stage_errors
from modelpred.predictor.newton_path import fit_newton_path, has_newton_path
from modelpred.targets import Points, points_of, target_model, train_targets
from modelpred.targets.compiled import kernels
from modelpred.targets.compiled.slopes import slope_changes
from modelpred.targets.model import TargetModel

FAMILIES = ("logistic", "softmax", "svm")
PLAIN = PredictorConfig(network="newton", steps=2)


def pool(seed: int, *, rows: int = 60, features: int = 4, classes: int = 2) -> Points:
    generator = np.random.default_rng(seed)
    features_ = generator.normal(size=(rows, features))
    scores = features_ @ generator.normal(size=(features, classes)) + generator.gumbel(
        size=(rows, classes)
    )
    labels = scores.argmax(1)
    labels[:classes] = np.arange(classes)
    return points_of(features_, labels, classes)


def drawn(points: Points, count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shares = 0.4 + 0.6 * torch.rand(count, 1, generator=generator)
    return (torch.rand(count, len(points.features), generator=generator) < shares).to(torch.uint8)


def trained(model: TargetModel, points: Points, weights: torch.Tensor) -> torch.Tensor:
    return train_targets(
        model, points.features, points.labels, weights.double(), classes=points.classes
    ).parameters


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def precision(request, monkeypatch):
    monkeypatch.setattr(paths, "product_dtype", lambda _: request.param)
    return 1e-4 if request.param == torch.float32 else 0.03


def inverse_at(model: TargetModel, path: paths.NewtonPath, index: int, points: Points):
    """H_s^-1 in float64."""
    share = path.shares[index].expand(len(points.features))
    return inverse_hessian(model, path.parameters[index], share, points)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("intercept", ["free", "penalised", "none"])
@pytest.mark.parametrize("directed", [True, False], ids=["directions", "factors"])
@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "torch"])
def test_moves_are_those_of_the_formula(
    family, intercept, *, directed, compiled, precision, monkeypatch
):
    if not directed:
        monkeypatch.setattr(paths, "DIRECTION_BYTES", 0)
    points = pool(3, classes=3 if family == "softmax" else 2)
    model = target_model(family, C=0.3, intercept=intercept)
    path = fit_newton_path(model, points)
    bound = path.bind(model, points, torch.float32)
    weights = drawn(points, 9, 5)
    index = bound.by_level(weights).levels[0]
    level, share = bound.level(index), float(path.shares[index])
    theta, basis = path.parameters[index], path.basis[0].double()
    inverse = inverse_at(model, path, index, points)
    factors, _ = leverage_corrected(
        model, theta, points, level.inverse, share=share, basis=path.basis
    )

    light = bound.narrowed(weights) if compiled else weights.to(bound.dtype)
    start = bound.starts(level, light)
    nothing = torch.zeros(1, 60, dtype=torch.float64)
    sums = ((weights[:, None] * factors) @ model.design(points.features)).flatten(1)
    expected = -((model.gradient(theta[None], nothing, points) + sums) @ inverse) @ basis
    largest = float(expected.abs().max())
    torch.testing.assert_close(start.double(), expected, rtol=0, atol=precision * largest)

    step = bound.gradient_step(level, light, start, start)
    there = theta + start.double() @ basis.T
    wanted = (model.gradient(there, weights.double(), points) @ inverse) @ basis
    torch.testing.assert_close(step.double(), wanted, rtol=0, atol=precision * largest)


@given(st.sampled_from(FAMILIES), st.integers(0, 2**31), st.floats(0.05, 2.0))
@settings(deadline=None, max_examples=30)
def test_the_leverage_correction_solves_the_system_with_the_row_changed(family, seed, share):
    points = pool(seed, rows=40, features=3, classes=4 if family == "softmax" else 2)
    model = target_model(family, C=0.3, intercept="penalised")
    generator = torch.Generator().manual_seed(seed)
    size = model.parameter_count(3, points.classes)
    theta = torch.randn(size, generator=generator, dtype=torch.float64)
    ones = torch.ones(40, dtype=torch.float64)
    plain = inverse_hessian(model, theta, share * ones, points)
    basis = torch.eye(size)[None]
    inverse = Inverse(plain.float()[None], plain.float()[None], None)
    change, absent = leverage_corrected(model, theta, points, inverse, share=share, basis=basis)
    row = int(torch.randint(40, (1,), generator=generator))
    for weight in (0, 1):
        changed = share * ones
        changed[row] = weight
        hessian = model.hessian(theta, changed, points)
        gradient = (weight - share) * model.point_gradients(theta, points)[row]
        corrected = torch.outer(
            absent[:, row] + weight * change[:, row], model.design(points.features)[row]
        )
        expected = torch.linalg.solve(hessian, gradient)
        found = plain @ corrected.flatten()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.norm()))


@given(st.sampled_from(FAMILIES), st.integers(0, 2**31), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=20)
def test_a_few_left_out_rows_are_summed_alone(family, seed, directed, counts):
    points = pool(seed, classes=3 if family == "softmax" else 2)
    model = target_model(family, C=0.2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "product_dtype", lambda _: torch.float32)
        patch.setattr(paths, "DIRECTION_BYTES", 2**30 if directed else 0)
        bound = fit_newton_path(model, points).bind(model, points, torch.float32)
        weights = torch.ones(4, 60)
        generator = torch.Generator().manual_seed(seed)
        for row in weights:
            row[torch.randint(60, (2,), generator=generator)] = 2 if counts else 0
        level = bound.level(bound.by_level(weights).levels[0])
        found: list[torch.Tensor] = []
        for few in (1, 10**9):
            patch.setattr(newton_products, "FEW_FACTORED", few)
            patch.setattr(newton_products, "FEW_DIRECTED", few)
            found.append(bound.starts(level, weights))
    scale = float(found[0].abs().max())
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-4 * max(1, scale))


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_weights_of_any_size_are_answered_by_their_optimum(family):
    points = pool(5, rows=150, classes=3 if family == "softmax" else 2)
    model = target_model(family, C=0.1)
    path = fit_newton_path(model, points)
    bound = path.bind(model, points, torch.float32)
    shares = torch.linspace(0.1, 1.3, 25, dtype=torch.float64)[:, None].expand(-1, 150)
    true = trained(model, points, shares)
    for share, expected in zip(shares.float(), true, strict=True):
        level = bound.level(bound.by_level(share[None]).levels[0])
        logs = bound.log_shares(level, share.sum()[None])
        start = level.penalty + share[0] * level.total - level.offset
        found = bound.parameters(level, bound.moves(level, start[None], logs))
        assert float(relative_errors(found, expected[None])[0]) < 5e-3


@pytest.mark.parametrize("family", ["softmax", "svm"])
def test_blocks_in_place_of_one_matrix_answer_nearly_as_well(family, monkeypatch):
    points = pool(8, rows=300, features=6, classes=5)
    model = target_model(family, C=0.1)
    weights = drawn(points, 60, 9)
    true = trained(model, points, weights)
    errors: list[list[float]] = []
    for largest in (4096, 20):
        monkeypatch.setattr(newton_inverse, "LARGEST_INVERSE", largest)
        path = fit_newton_path(model, points)
        assert len(path.basis) == (1 if largest == 4096 else 5)
        network = NewtonNetwork(path, steps=3)
        errors.append(stage_errors(network, network.bind(model, points), (weights, true)))
    assert errors[1][0] < 0.1
    assert errors[1][3] < 0.3 * errors[1][0]
    assert errors[1][0] < 2 * errors[0][0]


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_of_the_hessian_are_parts_of_it(family):
    points = pool(4, classes=3)
    model = target_model(family if family != "logistic" else "ridge_classifier", C=2.0)
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(15, generator=generator, dtype=torch.float64)
    weights = torch.rand(60, generator=generator, dtype=torch.float64)
    whole = model.hessian(theta, weights, points)
    blocks = model.output_hessians(theta, weights, points)
    for output, block in enumerate(blocks):
        own = slice(5 * output, 5 * output + 5)
        torch.testing.assert_close(block, whole[own, own])
    fewer = model.output_hessians(theta, weights, points, negligible=1e-3)
    torch.testing.assert_close(fewer, blocks, rtol=0, atol=2e-2 * float(blocks.max()))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_hessian_is_made_of_its_products(family):
    points = pool(4, classes=3 if family == "softmax" else 2)
    model = target_model(family, C=2.0)
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(
        model.parameter_count(4, points.classes), generator=generator, dtype=torch.float64
    )
    weights = torch.rand(60, generator=generator, dtype=torch.float64)
    expected = TargetModel.hessian(model, theta, weights, points)
    torch.testing.assert_close(model.hessian(theta, weights, points), expected)


@pytest.mark.skipif(kernels.library() is None, reason="no kernels were built")
@given(st.integers(1, 12), st.integers(1, 70), st.integers(1, 5), st.integers(0, 2**31))
@settings(deadline=None, max_examples=60)
def test_compiled_changes_of_slopes_are_those_of_torch(outputs, points, subsets, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = 5 * torch.randn(outputs, points, generator=generator)
    moved = (3 * torch.randn(outputs, subsets, points, generator=generator)).bfloat16()
    weights = torch.randint(0, 4, (subsets, points), generator=generator).bfloat16()
    beyond = 0.1 * torch.randn(outputs, points, generator=generator)
    changes = slope_changes("softmax", scores, 0.3, beyond=beyond)
    assert changes is not None

    def chances(values: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(values) if outputs == 1 else torch.softmax(values, 0)

    expected = (
        0.3
        * weights.float()
        * (chances(scores[:, None] + moved) - (chances(scores) + beyond)[:, None])
    )
    found = changes(moved.clone(), weights)
    torch.testing.assert_close(found.float(), expected.float(), rtol=2**-8, atol=1e-6)


@pytest.fixture(scope="module", params=FAMILIES)
def fitted(request):
    points = pool(8, rows=120, classes=3 if request.param == "softmax" else 2)
    model = target_model(request.param, C=0.1)
    weights = drawn(points, 120, 1)
    return fit_predictor(PLAIN, model, points, weights, trained(model, points, weights))


def test_each_gradient_comes_nearer(fitted):
    weights = drawn(fitted.points, 40, 9)
    true = trained(fitted.model, fitted.points, weights)
    errors = [
        relative_errors(fitted.predict(weights, stages=stage), true).mean() for stage in range(3)
    ]
    assert errors[0] < 0.2
    assert errors[2] < errors[1] < errors[0]
    refined = relative_errors(fitted.predict(weights, refine=2), true).mean()
    assert refined < 1e-4


def test_each_subset_stops_at_the_first_stage_whose_estimated_error_is_small_enough(fitted):
    weights = drawn(fitted.points, 40, 9)
    ladder = [fitted.predict(weights, stages=stage) for stage in range(1, 3)]
    torch.testing.assert_close(fitted.predict(weights, accuracy=10.0), ladder[0])
    torch.testing.assert_close(fitted.predict(weights, accuracy=1e-12), ladder[1])
    found = fitted.predict(weights, accuracy=0.004)
    near = torch.stack([(found - each).norm(dim=1) for each in ladder])
    assert float((near.amin(0) / found.norm(dim=1)).amax()) < 1e-3
    true = trained(fitted.model, fitted.points, weights)
    first, second, mixed = (relative_errors(each, true).mean() for each in (*ladder, found))
    assert second <= mixed <= first * (1 + 1e-6)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"accuracy": 0.0}, "accuracy is 0.0; expected a number above 0"),
        ({"accuracy": 0.1, "stages": 1}, "pass one of them"),
    ],
)
def test_an_accuracy_that_cannot_be_is_refused(fitted, settings, expected):
    with pytest.raises(InvalidInput, match=expected):
        fitted.predict(drawn(fitted.points, 2, 1), **settings)


def test_the_path_of_weighted_rows_is_trained_with_their_weights():
    plain = pool(6)
    factors = torch.rand(60, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    points = points_of(plain.features, plain.labels, 2, sample_weight=factors)
    model = target_model("logistic", C=0.3)
    path = fit_newton_path(model, points)
    for share, theta in zip(path.shares, path.parameters, strict=True):
        gradient = model.gradient(theta[None], share.expand(1, 60), points)
        assert float(gradient.norm()) < 1e-4


def test_the_certificate_holds(fitted):
    weights = drawn(fitted.points, 40, 10)
    answers = fitted.predict(weights)
    far = (answers - trained(fitted.model, fitted.points, weights)).norm(dim=1)
    bound = fitted.certificate(weights, answers)
    assert bool((far <= bound * (1 + 1e-6) + 1e-6).all())


def test_weights_of_any_type_are_answered_alike(fitted):
    weights = drawn(fitted.points, 5, 11)
    expected = fitted.predict(weights)
    for kind in (torch.bool, torch.int64, torch.float32, torch.float64):
        torch.testing.assert_close(fitted.predict(weights.to(kind)), expected, rtol=1e-2, atol=1e-2)
    halved = fitted.predict(weights.double() * 0.999)
    torch.testing.assert_close(halved, expected, rtol=0, atol=2e-2)


def test_a_written_predictor_answers_to_the_same_bit(fitted, tmp_path):
    write_predictor(fitted, tmp_path)
    again = read_predictor(tmp_path)
    weights = drawn(fitted.points, 7, 12)
    assert torch.equal(again.predict(weights), fitted.predict(weights))
    assert again.config.network == "newton"


def test_of_another_pool_it_has_that_pools_own_path(fitted):
    points = pool(9, rows=90, classes=fitted.points.classes)
    other = fitted.for_points(points)
    weights = drawn(points, 30, 13)
    errors = relative_errors(other.predict(weights), trained(fitted.model, points, weights))
    assert errors.mean() < 0.1


def test_subsets_without_an_optimum_get_the_prior(fitted):
    one_class = (fitted.points.labels == 0).to(torch.uint8)[None]
    rows = torch.cat([one_class, torch.zeros_like(one_class)])
    if fitted.model.name == "svm":  # has an optimum on one class, too
        rows = rows[1:]
    assert torch.equal(fitted.predict(rows), trained(fitted.model, fitted.points, rows))


def test_corrections_help_where_there_is_little_regularisation():
    points = pool(14, rows=200, features=6, classes=3)
    model = target_model("softmax", C=30.0)
    weights, others = drawn(points, 400, 2), drawn(points, 200, 3)
    judged = others, trained(model, points, others)
    predictor = fit_predictor(
        PredictorConfig(network="newton", steps=2), model, points, weights,
        trained(model, points, weights), validation=judged,
    )  # fmt: skip
    assert isinstance(predictor.anchors, paths.NewtonPath)
    plain = NewtonNetwork(predictor.anchors, steps=2)
    assert isinstance(predictor.network, NewtonNetwork)
    before = stage_errors(plain, plain.bind(model, points), judged)
    after = stage_errors(predictor.network, predictor.network.bind(model, points), judged)
    assert after[-1] < 0.7 * before[-1]


@pytest.mark.parametrize(
    ("rows", "network"), [(60, "anchored"), (20_000, "newton")], ids=["small", "large"]
)
def test_auto_takes_directions_for_large_pools(rows, network):
    points = pool(15, rows=rows)
    model = target_model("logistic", C=1.0)
    weights = drawn(points, 40, 4)
    config = PredictorConfig(epochs=1)
    predictor = fit_predictor(config, model, points, weights, trained(model, points, weights))
    assert predictor.config.network == network


def test_other_families_are_refused_in_one_line():
    points = points_of(torch.randn(30, 3), torch.randn(30), 0)
    model = target_model("ridge")
    assert not has_newton_path(model, points)
    weights = torch.ones(5, 30, dtype=torch.uint8)
    with pytest.raises(InvalidInput, match="newton, which needs a linear family"):
        fit_predictor(PLAIN, model, points, weights, torch.zeros(5, 4, dtype=torch.float64))
