"""What each design draws, and that no subset stands twice, whatever is asked for."""

import itertools
import math
from collections import Counter

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from modelpred.dataset import seeded_generator
from modelpred.errors import InvalidInput
from modelpred.subsets import (
    DESIGNS,
    ROLES,
    Subsets,
    SubsetsConfig,
    blocks,
    draw,
    draw_subsets,
    read_subsets,
    write_subsets,
)
from tests.odd_files import flip_bit

LITTLE = {"uniform": 1}


def rows_of(weights):
    return [tuple(row) for row in weights.tolist()]


def config_of(*, fit=None, validation=None, test=None, **others):
    return SubsetsConfig(
        fit=fit or {"bootstrap": 1},
        validation=validation or {"bootstrap": 1},
        test=test or {"bootstrap": 1},
        **others,
    )


def drawn_by(design, *, points, count, seed=0):
    generator = seeded_generator(seed, design)
    return draw(design, points=points, count=count, generator=generator)


def every_subset(design, points):
    """All that the design may draw, by going through all weights there are."""
    highest = points if design == "bootstrap" else 1
    base = points // 2
    allowed = {
        "leave_one_out": lambda row: sum(row) == points - 1,
        "addition": lambda row: all(row[:base]) and sum(row) > base,
        "deletion": lambda row: points - points // 2 <= sum(row) < points,
        "uniform": lambda row: sum(row) >= max(3, points / 10),
        "prefix": lambda row: sum(row) > 0,
        "bootstrap": lambda row: sum(row) == points,
    }[design]
    return {row for row in itertools.product(range(highest + 1), repeat=points) if allowed(row)}


@pytest.mark.parametrize("design", DESIGNS)
@settings(deadline=None)
@given(points=st.integers(3, 6), seed=st.integers(0, 3))
def test_a_design_draws_what_it_says(design, points, seed):
    count = points if design == "leave_one_out" else 40
    weights = drawn_by(design, points=points, count=count, seed=seed)
    assert weights.shape == (count, points)
    assert weights.dtype == torch.uint8
    assert set(rows_of(weights)) <= every_subset(design, points)


@pytest.mark.parametrize(
    ("design", "smallest", "largest"),
    [("uniform", 4, 40), ("deletion", 20, 39), ("addition", 21, 40)],
)
def test_sizes_are_uniform_and_so_are_members(design, smallest, largest):
    count, points = 20_000, 40
    weights = drawn_by(design, points=points, count=count).double()
    sizes = Counter(weights.sum(dim=1).int().tolist())
    expected = count / (largest - smallest + 1)
    assert set(sizes) == set(range(smallest, largest + 1))
    # Poisson counts: five standard deviations, for at most 37 sizes.
    assert all(abs(number - expected) < 5 * math.sqrt(expected) for number in sizes.values())
    chosen = weights[:, points // 2 :] if design == "addition" else weights
    shares = chosen.mean(dim=0)
    # A share of 20,000 zeros and ones has standard deviation below 0.5 / sqrt(20,000) = 0.0036.
    assert (shares - shares.mean()).abs().max() < 0.018


def test_prefixes_grow_by_one_point_from_one_to_all():
    weights = drawn_by("prefix", points=7, count=21).int()
    for order in weights.split(7):
        assert order.sum(dim=1).tolist() == list(range(1, 8))
        assert (order[1:] - order[:-1]).min() == 0
    assert not torch.equal(weights[:7], weights[7:14])


def test_bootstrap_counts_follow_the_multinomial():
    weights = drawn_by("bootstrap", points=20, count=20_000).double()
    assert torch.equal(weights.sum(dim=1), torch.full((20_000,), 20.0, dtype=torch.float64))
    # Variance n p (1 - p) = 0.95 and covariance -n p p = -0.05; with 20,000 rows the standard error
    # of an entry is at most 0.95 sqrt(2 / 20,000) = 0.01 (a little more for the skew).
    expected = torch.eye(20, dtype=torch.float64) - 0.05
    assert (torch.cov(weights.T) - expected).abs().max() < 0.06


def test_leave_one_out_has_each_point_left_out_once():
    weights = drawn_by("leave_one_out", points=9, count=9)
    assert sorted(rows_of(1 - weights)) == sorted(rows_of(torch.eye(9, dtype=torch.uint8)))


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("points", [3, 4, 5])
def test_all_distinct_subsets_can_be_had_and_not_one_more(design, points):
    there_are = len(every_subset(design, points))
    spare = "uniform" if design == "bootstrap" else "bootstrap"
    if (design, points) != ("bootstrap", 3):  # three points have one uniform subset to spare
        config = config_of(test={design: there_are}, validation={spare: 1}, fit={spare: 1})
        subsets = draw_subsets(config, points=points).select(role="test", design=design)
        assert sorted(rows_of(subsets.weights)) == sorted(every_subset(design, points))
    with pytest.raises(InvalidInput) as error:
        draw_subsets(config_of(test={design: there_are + 1}), points=points)
    assert str(error.value).startswith(f"subsets.test.{design} asks for {there_are + 1}, but of")
    assert str(error.value).endswith(f"ask for at most {there_are}")


def test_a_resample_of_every_point_once_is_the_full_set():
    full = {"uniform": 1}  # of three points: the only one
    subsets = draw_subsets(
        config_of(test=full, validation={"bootstrap": 4}, fit={"bootstrap": 5}), points=3
    )
    assert len(set(rows_of(subsets.weights))) == 10
    with pytest.raises(InvalidInput, match="only 5 are left"):
        draw_subsets(
            config_of(test=full, validation={"bootstrap": 4}, fit={"bootstrap": 6}), points=3
        )


def test_rare_resamples_are_found_too():
    # All 462 resamples of 6 points, the rarest of which is drawn once in 46,656 times.
    config = config_of(
        test={"bootstrap": 100}, validation={"bootstrap": 100}, fit={"bootstrap": 262}
    )
    assert len(set(rows_of(draw_subsets(config, points=6).weights))) == 462


def test_the_default_repeats_nothing():
    subsets = draw_subsets(SubsetsConfig(), points=300)
    assert len(set(rows_of(subsets.weights))) == len(subsets) == 5000 + 250 + 1250
    assert len(set(subsets.ids)) == len(subsets)
    assert Counter(zip(subsets.roles, subsets.designs, strict=True)) == {
        ("fit", "uniform"): 4000,
        ("fit", "bootstrap"): 1000,
        ("validation", "uniform"): 200,
        ("validation", "bootstrap"): 50,
        ("test", "uniform"): 500,
        ("test", "deletion"): 500,
        ("test", "bootstrap"): 250,
    }


counts = st.dictionaries(
    st.sampled_from(sorted(set(DESIGNS) - {"leave_one_out"})), st.integers(1, 30), min_size=1
)


# Fewer than 14 points would have too few additions.
@settings(max_examples=50, deadline=None)
@given(fit=counts, validation=counts, test=counts, points=st.integers(14, 16))
def test_roles_are_disjoint_and_hold_what_was_asked(fit, validation, test, points):
    asked = {"fit": fit, "validation": validation, "test": test}
    subsets = draw_subsets(SubsetsConfig(**asked), points=points)
    assert len(set(rows_of(subsets.weights))) == len(subsets)
    for role in ROLES:
        for design in DESIGNS:
            selected = subsets.select(role=role, design=design)
            assert len(selected) == asked[role].get(design, 0)
            first = f"{role}-{design}-000000"
            assert selected.ids[:1] == ((first,) if len(selected) else ())


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("points", [12, 300])
def test_more_keeps_the_earlier_ones(design, points):
    few, many = (12, 12) if design == "leave_one_out" else (260, 600)
    if design == "addition" and points == 12:
        few, many = 20, 60
    fewer = draw_subsets(config_of(fit={design: few // 2}), points=points)
    more = draw_subsets(config_of(fit={design: many}), points=points)
    for role in ROLES:
        for drawn in DESIGNS:
            before = fewer.select(role=role, design=drawn)
            after = more.select(role=role, design=drawn)
            assert before.ids == after.ids[: len(before)]
            assert torch.equal(before.weights, after.weights[: len(before)])


def test_growing_the_default_keeps_every_earlier_subset():
    before = draw_subsets(SubsetsConfig(), points=300)
    after = draw_subsets(SubsetsConfig(fit={"uniform": 6000, "bootstrap": 1000}), points=300)
    position = {name: index for index, name in enumerate(after.ids)}
    kept = after.at([position[name] for name in before.ids])
    assert torch.equal(kept.weights, before.weights)


def test_more_held_out_subsets_move_only_what_would_repeat():
    before = draw_subsets(config_of(test={"deletion": 50}, fit={"deletion": 400}), points=30)
    after = draw_subsets(config_of(test={"deletion": 400}, fit={"deletion": 400}), points=30)
    held_out = set(rows_of(after.select(role="test").weights))
    moved = 0
    old = rows_of(before.select(role="fit").weights)
    new = rows_of(after.select(role="fit").weights)
    for row, in_its_place in zip(old, new, strict=True):
        if row != in_its_place:
            moved += 1
            assert row in held_out
    assert 0 < moved < 50


def test_whole_orders_stay_in_one_role():
    subsets = draw_subsets(
        config_of(test={"prefix": 300}, validation={"prefix": 300}, fit={"prefix": 900}), points=300
    )
    first_halves = {
        tuple(np.flatnonzero(subsets.select(role=role).weights[149]).tolist()) for role in ROLES
    }
    assert len(first_halves) == 3
    fit = subsets.select(role="fit").weights.int()
    growth = fit[1:] - fit[:-1]
    # Within an order each prefix holds the one before; the last (all points) was drawn again.
    assert (growth.view(-1, 300)[:298] >= 0).all()


def test_the_seed_and_the_role_decide():
    one = draw_subsets(config_of(test=LITTLE, fit=LITTLE), points=300)
    same = draw_subsets(config_of(test=LITTLE, fit=LITTLE), points=300)
    other = draw_subsets(config_of(test=LITTLE, fit=LITTLE, seed=1), points=300)
    assert torch.equal(one.weights, same.weights)
    assert not set(rows_of(one.weights)) & set(rows_of(other.weights))


def test_blocks_are_the_subsets_in_order_and_their_size_changes_no_subset():
    subsets = draw_subsets(config_of(fit={"uniform": 23, "deletion": 7}, block=10), points=20)
    named = blocks(subsets, 10)
    assert [(name, len(block)) for name, block in named] == [
        ("test-bootstrap-0000", 1),
        ("validation-bootstrap-0000", 1),
        ("fit-deletion-0000", 7),
        ("fit-uniform-0000", 10),
        ("fit-uniform-0001", 10),
        ("fit-uniform-0002", 3),
    ]
    assert torch.equal(torch.cat([block.weights for _, block in named]), subsets.weights)
    assert tuple(name for _, block in named for name in block.ids) == subsets.ids
    again = draw_subsets(config_of(fit={"uniform": 23, "deletion": 7}, block=3), points=20)
    assert torch.equal(again.weights, subsets.weights)


@pytest.mark.parametrize("block", [0, -1])
def test_blocks_hold_at_least_one(block):
    subsets = draw_subsets(config_of(), points=5)
    with pytest.raises(InvalidInput, match=f"subsets.block must be at least 1, got {block}"):
        blocks(subsets, block)


def test_select_refuses_what_there_never_is():
    subsets = draw_subsets(config_of(), points=5)
    assert len(subsets.select(role="fit", design="prefix")) == 0
    with pytest.raises(InvalidInput, match="unknown role 'fitt'; known: test, validation, fit"):
        subsets.select(role="fitt")
    with pytest.raises(InvalidInput, match="unknown design 'unform'; known: leave_one_out, "):
        subsets.select(design="unform")


@pytest.mark.parametrize(
    ("config", "points", "message"),
    [
        (config_of(fit={"uniform": 0}), 9, "subsets.fit asks for no subsets; ask for at least 1"),
        (SubsetsConfig(test={}), 9, "subsets.test asks for no subsets; ask for at least 1"),
        (config_of(), 2, "subsets need at least 3 points, got 2"),
        (
            config_of(test={"leave_one_out": 4}, fit={"leave_one_out": 4}),
            6,
            "of the 6 distinct leave_one_out subsets of 6 points only 2 are left",
        ),
    ],
)
def test_what_cannot_be_drawn_is_told_in_one_line(config, points, message):
    with pytest.raises(InvalidInput) as error:
        draw_subsets(config, points=points)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_draw_refuses():
    with pytest.raises(InvalidInput, match="unknown design 'unform'; known: leave_one_out, addi"):
        drawn_by("unform", points=9, count=1)
    with pytest.raises(InvalidInput, match="at least 0, got -1"):
        drawn_by("uniform", points=9, count=-1)
    with pytest.raises(InvalidInput, match="9 points have 9 leave_one_out subsets, not 10"):
        drawn_by("leave_one_out", points=9, count=10)
    with pytest.raises(InvalidInput, match="at least 3 points, got 2"):
        drawn_by("uniform", points=2, count=1)


@pytest.mark.parametrize("wrong", [{"unform": 3}, {"uniform": -1}, {"uniform": 1.5}])
def test_the_config_refuses(wrong):
    with pytest.raises(ValidationError):
        SubsetsConfig(fit=wrong)


@pytest.fixture
def subsets():
    return draw_subsets(config_of(fit={"uniform": 23, "bootstrap": 7}), points=20)


def assert_same(one, other):
    assert (one.ids, one.roles, one.designs) == (other.ids, other.roles, other.designs)
    assert one.weights.dtype == other.weights.dtype
    assert torch.equal(one.weights, other.weights)


def test_round_trip(subsets, tmp_path):
    write_subsets(subsets, tmp_path)
    assert_same(read_subsets(tmp_path), subsets)
    table = pl.read_parquet(tmp_path / "subsets.parquet")  # readable without this library
    assert table.columns == ["subset_id", "role", "design", "size", "weights"]
    assert table["size"].to_list() == table["weights"].arr.sum().to_list()


def test_counts_over_255_survive(tmp_path):
    weights = torch.tensor([[300, 0, 1]], dtype=torch.int32)
    subsets = Subsets(("fit-bootstrap-000000",), ("fit",), ("bootstrap",), weights)
    write_subsets(subsets, tmp_path)
    assert_same(read_subsets(tmp_path), subsets)
    assert subsets.sizes.tolist() == [301]


def test_same_subsets_same_bytes(subsets, tmp_path):
    write_subsets(subsets, tmp_path / "one")
    write_subsets(subsets, tmp_path / "two")
    for name in ("subsets.json", "subsets.parquet"):
        one, two = (tmp_path / folder / name for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.999])
def test_a_flipped_byte_is_found(subsets, tmp_path, place):
    write_subsets(subsets, tmp_path)
    path = tmp_path / "subsets.parquet"
    flip_bit(path, place)
    with pytest.raises(InvalidInput, match=r"subsets\.parquet cannot be used.*run the subsets"):
        read_subsets(tmp_path)


@pytest.mark.parametrize("name", ["subsets.json", "subsets.parquet"])
def test_a_missing_file_is_named(subsets, tmp_path, name):
    write_subsets(subsets, tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InvalidInput, match=f"{name} is missing; run the subsets stage again"):
        read_subsets(tmp_path)
