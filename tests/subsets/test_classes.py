"""Subsets that lack a class are drawn again, by the law of their design; all others stay."""

import hashlib
import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from modelpred.dataset import seeded_generator
from modelpred.errors import InvalidInput
from modelpred.subsets import (
    DESIGNS,
    SubsetsConfig,
    draw,
    draw_subsets,
    read_subsets,
    write_subsets,
)
from modelpred.subsets.classes import DOUBLINGS, Classes, _none_of
from modelpred.subsets.designs import every_subset

ORDERED = ("prefix",)


@st.composite
def pools(draw, most=40):
    """Labels of a pool whose rarest class has 1 to 5 rows, in any order.

    Of 24 rows each design has over 500 subsets with every class, more than a config asks for.
    """
    rare = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    points = draw(st.integers(max(24, sum(rare) + 3), most))
    labels = [0] * (points - sum(rare)) + [
        at + 1 for at, count in enumerate(rare) for _ in range(count)
    ]
    return torch.tensor(draw(st.permutations(labels)))


counts = st.dictionaries(
    st.sampled_from([design for design in DESIGNS if design != "leave_one_out"]),
    st.integers(1, 30),
    min_size=1,
    max_size=3,
)
configs = st.builds(
    SubsetsConfig, fit=counts, validation=counts, test=counts, seed=st.integers(0, 3)
)


def lacks(row, labels):
    """Whether a class has no row in the subset: the slow way."""
    taken = {label for label, weight in zip(labels.tolist(), row, strict=True) if weight > 0}
    return taken != {*labels.tolist()}


def rows_of(subsets):
    return [tuple(row) for row in subsets.weights.tolist()]


def lacking(subsets, labels):
    return [lacks(row, labels) for row in subsets.weights.tolist()]


@given(pools(), configs)
@settings(max_examples=60, deadline=None)
def test_no_subset_lacks_a_class_but_the_shortest_prefixes(labels, config):
    plain = draw_subsets(config, points=len(labels))
    subsets = draw_subsets(config, points=len(labels), labels=labels)
    assert subsets.ids == plain.ids
    assert subsets.weights.dtype == plain.weights.dtype
    assert len({*rows_of(subsets)}) == len(subsets)
    classes = len(labels.unique())
    for row, design, degenerate in zip(
        subsets.weights.tolist(), subsets.designs, lacking(subsets, labels), strict=True
    ):
        assert not degenerate or (design in ORDERED and sum(row) < classes)
        assert sum(row) == len(labels) or design != "bootstrap"


@given(pools(), configs)
@settings(max_examples=60, deadline=None)
def test_what_lacks_nothing_stays_and_the_rest_is_counted(labels, config):
    """Each draw of a block is taken as it comes, unless it repeats one or lacks a class."""
    points = len(labels)
    subsets = draw_subsets(config, points=points, labels=labels)
    seen = set()
    for role, design in dict.fromkeys(zip(subsets.roles, subsets.designs, strict=True)):
        found = rows_of(subsets.select(role=role, design=design))
        if design in ORDERED:
            seen |= {*found}
            continue
        generator = seeded_generator(config.seed, "subsets", role, design, 0)
        plain = draw(design, points=points, count=250, generator=generator)
        lacked = repeated = 0
        for row, new in zip(map(tuple, plain.tolist()), found, strict=False):
            if row in seen:
                repeated += 1
            elif lacks(row, labels):
                lacked += 1
            else:
                assert row == new
            seen.add(new)
        counted = subsets.redrawn.get(f"{role}-{design}", 0)
        assert lacked <= counted <= lacked + repeated


def test_sizes_stay():
    """Of 300 points all sizes allow three classes, the rarest with one row."""
    labels = torch.tensor([0] * 290 + [1] * 9 + [2])
    plain, subsets = (
        draw_subsets(SubsetsConfig(), points=300, labels=each) for each in (None, labels)
    )
    assert torch.equal(plain.sizes, subsets.sizes)
    assert sum(subsets.redrawn.values()) > 1000


@given(pools(), configs, st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_more_keeps_the_earlier_ones(labels, config, further):
    more = config.model_copy(
        update={"fit": {name: count + further for name, count in config.fit.items()}}
    )
    first = next(name for name in DESIGNS if name in config.fit)
    few, many = (draw_subsets(each, points=len(labels), labels=labels) for each in (config, more))
    for role, design in (("test", None), ("validation", None), ("fit", first)):
        old, new = (each.select(role=role, design=design) for each in (few, many))
        assert old.ids == new.ids[: len(old)]
        assert torch.equal(old.weights, new.weights[: len(old)])


def test_draws_without_labels_or_without_a_missing_class_have_the_bytes_of_earlier_versions():
    config = SubsetsConfig()
    for labels in (None, torch.arange(300) % 2):
        subsets = draw_subsets(config, points=300, labels=labels)
        digest = hashlib.sha256(subsets.weights.numpy().tobytes()).hexdigest()
        assert digest == "3cf756c264972ab258599b5bedd27c4c95659d99266aa32e35fb6cdad255dce0"
        assert not subsets.redrawn


@pytest.mark.parametrize("design", [name for name in DESIGNS if name not in ORDERED])
@pytest.mark.parametrize("labels", [[0, 0, 0, 1, 1, 2], [2, 0, 1, 0, 0, 1], [0, 1, 1, 1, 1, 1]])
def test_the_law_is_that_of_the_design_given_every_class(design, labels):
    """Every subset of a size that has all classes is equally likely; resamples by their counts."""
    draws, points = 1500, len(labels)
    classes = Classes(np.array(labels), points=points)
    generator = seeded_generator(0, design)
    possible = [tuple(row.tolist()) for row in every_subset(design, points)]
    whole = [row for row in possible if not lacks(row, torch.tensor(labels))]
    for size in classes.sizes(design).tolist():
        of_size = [row for row in whole if sum(row) == size]
        found = Counter(
            tuple(row.tolist())
            for _ in range(draws)
            if (row := classes.draw(design, size, generator)) is not None
        )
        assert {*found} <= {*of_size}
        ways = {
            row: 1 / math.prod(map(math.factorial, row)) if design == "bootstrap" else 1.0
            for row in of_size
        }
        total, drawn = sum(ways.values()), sum(found.values())
        # Chi-squared with k cells has mean k and variance 2 k; cells of under 5 are put together.
        cells = [(found[row], drawn * way / total) for row, way in ways.items()]
        rest = [cell for cell in cells if cell[1] < 5]
        cells = [cell for cell in cells if cell[1] >= 5]
        if rest:
            cells.append((sum(got for got, _ in rest), sum(want for _, want in rest)))
        squares = sum((got - want) ** 2 / want for got, want in cells)
        assert squares < len(cells) + 6 * math.sqrt(2 * len(cells)), (size, squares)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 3), st.data())
@settings(max_examples=60, deadline=None)
def test_the_bound_is_one(rare, spare, data):
    """No size is left out at which the chance of every class is as large as the bound says."""
    numbers = [spare + 1, *rare]
    labels = np.repeat(np.arange(len(numbers)), numbers)
    points = len(labels)
    assume(3 <= points <= 10)
    size = data.draw(st.integers(1, points))
    subsets = list(itertools.combinations(range(points), size))
    share = sum(len({*labels[list(rows)]}) == len(numbers) for rows in subsets) / len(subsets)
    absent = [_none_of(number, points, np.array([size]))[0] for number in numbers]
    exact = [math.comb(points - number, size) / math.comb(points, size) for number in numbers]
    np.testing.assert_allclose(absent, exact, rtol=1e-12)
    assert share <= np.prod([1 - each for each in absent]) + 1e-12
    if share * 2**DOUBLINGS > 1 and size >= max(3, points / 10):
        assert size in Classes(labels, points=points).sizes("uniform")


@given(pools(), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_an_order_keeps_its_prefixes_that_have_every_class(labels, seed):
    points, classes = len(labels), len(labels.unique())
    config = SubsetsConfig(
        test={"bootstrap": 1}, validation={"bootstrap": 1}, fit={"prefix": points - 1}, seed=seed
    )
    plain = draw_subsets(config, points=points).select(role="fit")
    moved = draw_subsets(config, points=points, labels=labels).select(role="fit")
    assert (moved.weights[1:].int() - moved.weights[:-1].int()).min() >= 0
    assert moved.sizes.tolist() == list(range(1, points))
    before, after = lacking(plain, labels), lacking(moved, labels)
    assert after == [size < classes for size in range(1, points)]
    whole = [at for at, lack in enumerate(before) if not lack]
    assert torch.equal(moved.weights[whole], plain.weights[whole])


@pytest.mark.parametrize(
    ("design", "points", "count"),
    [("uniform", 9, 400), ("deletion", 9, 200), ("leave_one_out", 9, 9), ("bootstrap", 5, 100)],
)
def test_where_no_more_have_every_class_the_others_stay(design, points, count):
    """Nearly all subsets of a pool with one row of the rarer class, a third of which lack it."""
    labels = torch.tensor([1] + [0] * (points - 1))
    spare = "uniform" if design == "bootstrap" else "bootstrap"
    config = SubsetsConfig(test={design: count}, validation={spare: 1}, fit={spare: 1})
    subsets = draw_subsets(config, points=points, labels=labels).select(role="test")
    found = {*rows_of(subsets)}
    assert len(found) == count
    possible = [tuple(row.tolist()) for row in every_subset(design, points)]
    others = {*possible} - found
    assert any(lacking(subsets, labels))
    assert all(lacks(row, labels) for row in others if sum(row) != points or design == "bootstrap")


def test_a_hundred_rare_classes_take_no_long_search():
    """Only resamples cannot have them all; every other design draws sizes that do."""
    labels = torch.cat([torch.zeros(100, dtype=torch.int64), 1 + torch.arange(200) // 2])
    config = SubsetsConfig(
        fit={"uniform": 20, "bootstrap": 5}, validation={"uniform": 5}, test={"deletion": 20}
    )
    subsets = draw_subsets(config, points=300, labels=labels)
    degenerate = [
        design
        for design, lack in zip(subsets.designs, lacking(subsets, labels), strict=True)
        if lack
    ]
    assert degenerate == ["bootstrap"] * 5


def test_labels_of_another_pool_are_refused():
    with pytest.raises(InvalidInput, match="labels of 20 rows were given for 30 points"):
        draw_subsets(SubsetsConfig(), points=30, labels=torch.zeros(20, dtype=torch.int64))


def test_what_was_drawn_again_is_written(tmp_path):
    config = SubsetsConfig(fit={"uniform": 40}, validation={"uniform": 5}, test={"uniform": 10})
    labels = torch.tensor([1] + [0] * 29)
    for given_labels in (None, labels):
        subsets = draw_subsets(config, points=30, labels=given_labels)
        assert bool(subsets.redrawn) == (given_labels is not None)
        write_subsets(subsets, tmp_path)
        assert read_subsets(tmp_path).redrawn == subsets.redrawn
        assert ("redrawn" in (tmp_path / "subsets.json").read_text()) == bool(subsets.redrawn)
