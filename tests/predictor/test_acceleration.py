"""Accelerated steps: the least-squares formula, and the end of a quadratic problem in as many steps as it has directions."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.predictor import acceleration
from modelpred.predictor.acceleration import WINDOW, Acceleration

drawn = given(st.integers(1, WINDOW), st.integers(1, 4), st.integers(0, 2**31))
quick = settings(deadline=None, max_examples=40)


def problem(size: int, subsets: int, seed: int):
    """Hessians [subsets, size, size], the diagonal of H, and a function from d to v = H^-1 (A d - b)."""
    generator = torch.Generator().manual_seed(seed)
    roots = torch.randn(subsets, size, 2 * size, generator=generator, dtype=torch.float64)
    diagonal = torch.rand(size, generator=generator, dtype=torch.float64) + 0.5
    hessians = roots @ roots.mT / (2 * size) + 0.1 * torch.eye(size, dtype=torch.float64)
    right = torch.randn(subsets, size, generator=generator, dtype=torch.float64)

    def step(move: torch.Tensor) -> torch.Tensor:
        return ((hessians @ move[:, :, None])[..., 0] - right) / diagonal

    return diagonal, step


@drawn
@quick
def test_a_quadratic_problem_ends_after_one_step_more_than_it_has_directions(size, subsets, seed):
    diagonal, step = problem(size, subsets, seed)
    accelerated = Acceleration(diagonal)
    move, last = torch.zeros(subsets, size, dtype=torch.float64), torch.zeros(subsets, size)
    first = step(move).norm(dim=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(acceleration, "LEAST", 0)  # no change is so small that it counts as rounding
        for _ in range(size + 1):
            last = -accelerated(step(move), last)
            move = move + last
    assert bool((step(move).norm(dim=1) <= 1e-6 * first).all())


@drawn
@quick
def test_steps_are_those_of_least_squares_over_the_last_moves(size, subsets, seed):
    size += 3  # so that moves are fewer than directions
    diagonal, step = problem(size, subsets, seed)
    accelerated = Acceleration(diagonal)
    move, last = torch.zeros(subsets, size, dtype=torch.float64), torch.zeros(subsets, size)
    moves: list[torch.Tensor] = []
    steps: list[torch.Tensor] = []
    for _ in range(3):
        steps.append(step(move))
        found = accelerated(steps[-1], last)
        if moves:
            kept = torch.stack(moves, 2)
            changes = torch.stack([b - a for a, b in pairwise(steps)], 2)
            scaled = diagonal.sqrt()[:, None]
            shares = torch.linalg.lstsq(scaled * changes, (scaled[:, 0] * steps[-1])[:, :, None])
            expected = steps[-1] + ((kept - changes) @ shares.solution)[..., 0]
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
        last = -found
        move = move + last
        moves.append(last)


def test_subsets_that_have_arrived_stay_where_they_are():
    accelerated = Acceleration(torch.ones(3))
    nothing = torch.zeros(2, 3)
    for _ in range(2 * WINDOW):
        assert torch.equal(accelerated(nothing, nothing), nothing)
