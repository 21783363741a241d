"""Constants that are computed from a table: exact against fractions, finite, and never hiding cells."""

import math
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.dataset import DatasetConfig, Table, prepare_table, read_dataset, write_dataset
from modelpred.dataset.deviation import distances
from modelpred.dataset.encoding import Encoding, fit_encoding
from modelpred.dataset.scaling import fit_scaling, require_apart, scaled_features
from modelpred.errors import InvalidInput

POWERS = st.integers(-300, 149)
SENTINELS = st.sampled_from(
    [
        -1.7976931348623157e308,
        1e300,
        1e200,
        -1e160,
        1e100,
        9.969209968386869e36,
        3.4e38,
        -1e30,
        1e20,
    ]
)


def columns(power):
    """Different numbers of about one size, whatever that is."""
    return st.lists(
        st.floats(-9, 9).map(lambda value: round(value, 3) * 10.0**power), min_size=3, max_size=12
    )


def table(cells):
    rows = len(cells)
    frame = pl.DataFrame(
        {
            "row_id": [str(row) for row in range(rows)], "x": cells,
            "z": np.arange(rows) * 1.0, "y": ["01"[row % 2] for row in range(rows)],
        }
    )  # fmt: skip
    return Table("t", frame, "y", ("0", "1"), rows - 4, 4, "")


@settings(deadline=None, max_examples=100)
@given(POWERS.flatmap(columns))
def test_constants_are_the_exact_ones_at_every_size(values):
    cells = torch.tensor(values, dtype=torch.float64)[:, None]
    exact = [Fraction(value) for value in values]
    mean = sum(exact) / len(exact)
    variance = sum((value - mean) ** 2 for value in exact) / len(exact)
    scaling = fit_scaling("standardise", cells)
    if len(set(values)) == 1:
        assert scaling.divisor == (1.0,)
        return
    # Of exact numbers; sums of twelve round by some units of the last place.
    size = max(map(abs, exact))
    assert abs(Fraction(scaling.offset[0]) - mean) <= size * Fraction(1, 10**14)
    assert abs(Fraction(scaling.divisor[0]) ** 2 / variance - 1) <= Fraction(1, 10**9)
    norm = fit_scaling("largest_row_norm", cells).divisor[0]
    assert Fraction(norm) == max(map(abs, exact))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9), st.integers(-900, 400))
def test_a_power_of_two_scales_the_constants_to_the_bit(values, power):
    values = [float(np.float32(value)) for value in values]
    values = [0.0 if abs(value) < 1e-12 else value for value in values]
    cells = torch.tensor(values, dtype=torch.float64)[:, None]
    for name in ("standardise", "largest_row_norm"):
        one, other = (fit_scaling(name, part) for part in (cells, cells * 2.0**power))
        if one.divisor != (1.0,) and power > -800:
            assert other.divisor[0] == math.ldexp(one.divisor[0], power)
            assert other.offset[0] == math.ldexp(one.offset[0], power)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["dense", "binary", "sparse", "counts"]), SENTINELS,
    st.sampled_from(["standardise", "largest_row_norm", "none"]), st.integers(1, 20),
    st.integers(0, 9),
)  # fmt: skip
def test_a_far_number_never_hides_the_others(shape, sentinel, scaling, often, seed):
    generator = np.random.default_rng(seed)
    cells = {
        "dense": generator.normal(size=80),
        "binary": generator.integers(0, 2, 80) * 1.0,
        "sparse": np.where(generator.random(80) < 0.1, generator.normal(size=80), 0.0),
        "counts": generator.integers(0, 9, 80) * 1.0,
    }[shape]
    cells[generator.permutation(80)[:often]] = sentinel
    if seed % 2:
        cells[generator.integers(80)] = 2.0  # one different number more
    data, told = prepared(cells, scaling)
    if data is None:
        assert "column" in told
        assert "\n" not in told
        return
    # The pool may have missed the sentinel; where it has it, no constant was computed from it.
    if sentinel in data.rows["x"]:
        assert scaling == "none"
    assert bool((data.features**2).sum().isfinite())


def prepared(cells, scaling):
    """The data set of these cells, or why there is none."""
    try:
        return prepare_table(table(cells), DatasetConfig(scaling=scaling, points=76, test=4)), ""
    except InvalidInput as error:
        return None, str(error)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([1.0, 1e-200, 1e-20, 1e8, 1e30, 1e140]),
    st.sampled_from(["normal", "lognormal", "cauchy", "binary", "sparse", "money"]),
    st.integers(0, 9),
)
def test_ordinary_columns_are_taken_in_any_unit(unit, kind, seed):
    generator = np.random.default_rng(seed)
    cells = {
        "normal": generator.normal(size=200), "lognormal": generator.lognormal(0, 3, 200),
        "cauchy": generator.standard_cauchy(200), "binary": generator.integers(0, 2, 200),
        "sparse": generator.poisson(0.02, 200), "money": generator.pareto(1, 200).round(2) * 1e5,
    }[kind] * unit  # fmt: skip
    cells[0] = 0  # never constant
    cells[1] = unit
    tensor = torch.from_numpy(cells)[:, None]
    scaling = fit_scaling("standardise", tensor)
    require_apart(scaling, tensor, columns=["x"], what="t")
    features = scaled_features(scaling, tensor, columns=["x"], what="t")
    assert float(features.std(correction=0)) == pytest.approx(1, rel=1e-9)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-1.7e308, 1.7e308) | st.none(), min_size=2, max_size=9))
def test_what_fills_missing_cells_is_finite_and_survives_json(values):
    rows = pl.DataFrame({"x": pl.Series(values, dtype=pl.Float64)})
    encoding = fit_encoding(rows, ["x"], levels=5)
    again = Encoding.model_validate_json(encoding.model_dump_json())
    assert again == encoding
    present = sorted(Fraction(value) for value in values if value is not None)
    if present:
        low, high = present[(len(present) - 1) // 2], present[len(present) // 2]
        exact = (low + high) / 2
        fill = Fraction(again.columns[0].fill)
        assert abs(fill - exact) <= abs(exact) * Fraction(1, 10**15) + Fraction(5e-324)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-9, 9), min_size=3, max_size=9), st.integers(-290, 300))
def test_how_far_rows_are_apart_knows_no_unit(values, power):
    values = [round(value, 3) for value in values]
    usual = distances(pl.DataFrame({"x": values}), ["x"])
    far = distances(pl.DataFrame({"x": [value * 10.0**power for value in values]}), ["x"])
    np.testing.assert_allclose(far, usual, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("value", [1e160, -1e300, 1e36])
def test_numbers_to_predict_are_checked_alike(value):
    labels = np.arange(40) * 1.0
    labels[3] = value
    frame = pl.DataFrame({"row_id": [str(row) for row in range(40)], "x": range(40), "y": labels})
    with pytest.raises(InvalidInput, match="too large to compute with"):
        prepare_table(Table("t", frame, "y", (), 30, 10, ""), DatasetConfig())


def test_large_units_come_back_from_files(tmp_path):
    data = prepare_table(table(np.arange(12) * 1e140), DatasetConfig(points=8, test=4))
    write_dataset(data, tmp_path)
    assert read_dataset(tmp_path).scaling == data.scaling
