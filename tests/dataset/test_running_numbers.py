"""A number that counts the rows is an id, whatever its order, gaps or type; a measure is none."""

import numpy as np
import polars as pl
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from modelpred.dataset.columns import inspect_columns


def problems(cells):
    rows = pl.DataFrame({"n": cells})
    where = [f"row {row}" for row in range(len(rows))]
    return inspect_columns(rows, ["n"], source="t", categories=(), where=where).problems


@given(
    st.integers(100, 2000), st.floats(0.2, 1), st.integers(-1000, 10**12), st.integers(0, 2**32 - 1)
)
@settings(max_examples=60, deadline=None)
def test_a_running_number_is_an_id_with_gaps_and_in_any_order(rows, share, first, seed):
    draws = np.random.default_rng(seed)
    numbers = first + draws.permutation(rows)[: max(60, int(share * rows))]
    # Fewer numbers of a wide range might all differ by chance: exp(-7) is the limit.
    assume(len(numbers) * (len(numbers) - 1) / (2 * rows) > 7)
    for kind in (pl.Int64, pl.Float64):
        assert "counts the rows" in problems(pl.Series("n", numbers, dtype=kind))[0]


@given(st.integers(20, 2000), st.integers(1, 6), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_whole_numbers_drawn_by_chance_are_a_measure(rows, digits, seed):
    draws = np.random.default_rng(seed)
    numbers = draws.integers(0, 10**digits, rows)
    assert not problems(pl.Series("n", numbers))
    assert not problems(pl.Series("n", draws.normal(size=rows)))
