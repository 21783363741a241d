"""Kernels of Newton directions: every sum against the textbook sum in float64, on drawn shapes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.errors import InvalidInput
from modelpred.targets import target_model
from modelpred.targets.compiled import answers, kernels
from modelpred.targets.compiled.answers import compiled_rows, totals_of

KINDS = tuple(kind for kind in kernels.kinds() if kernels.loaded(kind) is not None)

pytestmark = pytest.mark.skipif(not answers.available(), reason="no kernels were built")
shapes = given(
    kind=st.sampled_from(KINDS or ("plain",)),
    loss=st.sampled_from(answers.LOSSES),
    points=st.integers(1, 130),
    features=st.integers(1, 70),
    subsets=st.integers(1, 12),
    share=st.sampled_from((0.02, 0.5, 0.98)),
    seed=st.integers(0, 2**31),
)


@pytest.fixture(scope="module")
def kind_in_use():
    """Set the kernels that are called to those of a kind."""
    with pytest.MonkeyPatch.context() as patch:

        def use(kind: str) -> None:
            patch.setattr(kernels, "library", lambda: kernels.loaded(kind))

        yield use


def drawn_weights(generator: np.random.Generator, subsets: int, points: int, share: float):
    weights = (generator.uniform(size=(subsets, points)) < share).astype(np.uint8)
    weights[0] = generator.integers(0, 256, points)  # counts of a resample, and far beyond
    return torch.from_numpy(weights)


@shapes
@settings(deadline=None, max_examples=120)
def test_sums_and_gradients_are_those_of_torch(
    kind_in_use, *, kind, loss, points, features, subsets, share, seed
):
    kind_in_use(kind)
    generator = np.random.default_rng(seed)
    design = torch.from_numpy(generator.normal(size=(points, features)))
    labels = torch.from_numpy(generator.integers(0, 2, points))
    factors = torch.from_numpy(generator.uniform(0.1, 2, points))
    theta = torch.from_numpy(generator.normal(size=features))
    directions = torch.from_numpy(generator.normal(size=(points, int(generator.integers(1, 70)))))
    weights = drawn_weights(generator, subsets, points, share)
    moves = torch.from_numpy(generator.normal(size=(subsets, features)))
    slopes = torch.from_numpy(generator.normal(size=points))
    rows = compiled_rows(loss, design, factors, labels)
    assert rows is not None
    anchor = rows.anchored(scores=design @ theta, slopes=slopes, directions=directions)

    wide = weights.double()
    expected = wide @ directions
    reach = wide @ directions.abs() + directions.abs().sum(0)
    assert bool(((anchor.sums(weights) - expected).abs() <= 1e-5 * reach + 1e-6).all())

    scores = (theta + moves) @ design.T
    changes = target_model(loss).score_slopes(scores[None], labels)[0] - slopes
    terms = wide * factors * changes
    found = anchor.gradients(weights, moves.float())
    # A score's rounding changes a slope by at most twice as much.
    blur = wide * factors * (1 + 2 * (theta.abs() + moves.abs()) @ design.abs().T)
    reach = (terms.abs() + blur) @ design.abs()
    assert bool(((found - terms @ design).abs() <= 1e-5 * reach + 1e-6).all())


@given(
    kind=st.sampled_from(KINDS or ("plain",)),
    points=st.integers(1, 600),
    subsets=st.integers(1, 5),
    classes=st.integers(1, 9),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=60)
def test_totals_are_those_of_torch(kind_in_use, *, kind, points, subsets, classes, seed):
    kind_in_use(kind)
    generator = np.random.default_rng(seed)
    labels = torch.from_numpy(generator.integers(0, classes, points))
    weights = drawn_weights(generator, subsets, points, float(generator.uniform(0, 0.1)))
    found = totals_of(weights, labels, classes)
    wide = weights.to(torch.int64)
    assert torch.equal(found.weights, wide.sum(1))
    assert torch.equal(found.squares, (wide * wide).sum(1))
    own = torch.nn.functional.one_hot(labels, classes)
    assert torch.equal(found.seen, ((wide @ own) > 0).to(torch.int64))


def test_memory_of_another_kind_is_refused_in_one_line():
    rows = compiled_rows("logistic", torch.randn(5, 3), torch.ones(5), torch.ones(5))
    assert rows is not None
    anchor = rows.anchored(
        scores=torch.zeros(5), slopes=torch.zeros(5), directions=torch.zeros(5, 2)
    )
    for wrong in (torch.ones(2, 5), torch.ones(2, 6, dtype=torch.uint8)):
        with pytest.raises(InvalidInput, match=r"weights is .* the kernels expect") as refused:
            anchor.sums(wrong)
        assert "\n" not in str(refused.value)
    with pytest.raises(InvalidInput, match="moves is"):
        anchor.gradients(torch.ones(2, 5, dtype=torch.uint8), torch.zeros(3, 3))


def test_other_losses_have_no_compiled_rows():
    assert compiled_rows("softmax", torch.randn(5, 3), torch.ones(5), torch.ones(5)) is None
