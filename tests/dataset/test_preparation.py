"""Splits are disjoint, stratified and reproducible; scalers see training rows only."""

import dataclasses
import math

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.preprocessing import StandardScaler

from modelpred.dataset import (
    DatasetConfig,
    Table,
    fit_scaling,
    load_table,
    prepare,
    prepare_table,
    seeded_generator,
)
from modelpred.errors import InvalidInput

SCALINGS = ["standardise", "largest_row_norm", "none"]


def table_of(labels, cells=None, *, classes=("0", "1"), points=6, test=3):
    """A table with two features, unless given, and these labels."""
    count = len(labels)
    cells = cells or {
        "height": [float(row) for row in range(count)],
        "width": [float(row * row) for row in range(count)],
    }
    row_ids = [str(row) for row in range(count)]
    rows = pl.DataFrame({"row_id": row_ids, **cells, "label": labels})
    return Table("mine", rows, "label", classes, points, test, "made for a test")


def original_cells(dataset, row_ids):
    table = load_table(dataset.name)
    cells = table.rows.select(table.feature_names).to_numpy()
    return cells[[int(row_id) for row_id in row_ids]]


@pytest.mark.parametrize("source", ["spam", "digits", "diabetes"])
def test_no_row_is_used_twice_and_rows_tell_where_points_come_from(source):
    dataset = prepare(DatasetConfig(source=source, scaling="none"))
    used = [*dataset.row_ids, *dataset.test_row_ids]
    assert len(set(used)) == len(used)
    np.testing.assert_array_equal(dataset.features, original_cells(dataset, dataset.row_ids))
    np.testing.assert_array_equal(
        dataset.test_features, original_cells(dataset, dataset.test_row_ids)
    )
    assert dataset.rows["row_id"].to_list() == list(dataset.row_ids)
    told = dataset.rows[dataset.label_name]
    if dataset.classes:
        assert told.cast(str).to_list() == [dataset.classes[index] for index in dataset.labels]
    else:
        assert told.to_list() == dataset.labels.tolist()


@pytest.mark.parametrize(
    ("source", "points", "test"),
    [("spam", 300, 500), ("iris", 67, 33), ("breast_cancer", 300, 269), ("digits", 500, 1000)],
)
def test_the_customary_sizes(source, points, test):
    dataset = prepare(DatasetConfig(source=source))
    assert len(dataset.labels) == len(dataset.features) == points
    assert len(dataset.test_labels) == len(dataset.test_features) == test


def test_standardised_features_agree_with_scikit_learn_fitted_on_training_rows():
    dataset = prepare(DatasetConfig(source="breast_cancer"))
    scaler = StandardScaler().fit(original_cells(dataset, dataset.row_ids))
    # Two orders of summation in float64: a few units in the last place of values around 1.
    torch.testing.assert_close(
        dataset.test_features,
        torch.from_numpy(scaler.transform(original_cells(dataset, dataset.test_row_ids))),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize("scaling", SCALINGS)
def test_test_rows_do_not_reach_the_scaler(scaling):
    table = table_of([0, 1] * 10)
    config = DatasetConfig(source="mine", points=10, test=5, scaling=scaling)
    dataset = prepare_table(table, config)
    in_test = pl.col("row_id").is_in(dataset.test_row_ids)
    disturbed = table.rows.with_columns(
        pl.when(in_test).then(pl.col("height") * 1000).otherwise(pl.col("height")).alias("height")
    )
    again = prepare_table(dataclasses.replace(table, rows=disturbed), config)
    assert again.scaling == dataset.scaling
    torch.testing.assert_close(again.features, dataset.features, rtol=0, atol=0)
    assert not torch.equal(again.test_features, dataset.test_features)


def test_the_largest_training_row_has_norm_one():
    dataset = prepare(DatasetConfig(source="spam", scaling="largest_row_norm"))
    assert dataset.features.norm(dim=1).max().item() == pytest.approx(1, abs=1e-12)
    assert torch.equal(
        dataset.features == 0, torch.from_numpy(original_cells(dataset, dataset.row_ids) == 0)
    )  # fmt: skip - no shift, so zeros stay zeros


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("value", [0.0, 0.1, -7.0, 1e300])
def test_constant_cells_give_finite_features(scaling, value):
    cells = torch.full((300, 2), value, dtype=torch.float64)
    features = fit_scaling(scaling, cells)(cells)
    if scaling == "standardise":
        assert features.abs().max() == 0  # exactly: the mean of 300 times 0.1 is not 0.1
    elif value < 1e300:  # beyond, the norm overflows, which preparing refuses
        assert features.isfinite().all()


def test_cells_too_large_to_scale_are_refused():
    cells = {"height": [1e308 * (-1) ** row for row in range(12)], "width": [1.0] * 12}
    with pytest.raises(InvalidInput, match="column 'height' of mine holds values too large"):
        prepare_table(table_of([0, 1] * 6, cells), DatasetConfig(points=6, test=3))


@settings(deadline=None)
@given(
    labels=st.lists(st.sampled_from("abc"), min_size=12, max_size=40).filter(
        lambda labels: len(set(labels)) > 1
    ),
    points=st.integers(3, 9),
    test=st.integers(1, 3),
    seed=st.integers(0, 5),
)
def test_classes_keep_their_shares(labels, points, test, seed):
    table = table_of(labels, classes=("a", "b", "c"))
    config = DatasetConfig(points=points, test=test, seed=seed)
    dataset = prepare_table(table, config)
    assert len(dataset.labels) == points
    assert len(dataset.test_labels) == test
    drawn = np.bincount(dataset.labels, minlength=len(dataset.classes))
    exact = [points * labels.count(name) / len(labels) for name in dataset.classes]
    assert drawn.min() >= 1
    for got, share in zip(drawn, exact, strict=True):
        # At most one row off, or the one row that a rare class must have (taken from the others).
        assert math.floor(share) - len(exact) < got < max(share, 1) + 1


def test_the_seed_decides_the_split():
    one = prepare(DatasetConfig(source="iris"))
    same = prepare(DatasetConfig(source="iris"))
    other = prepare(DatasetConfig(source="iris", seed=1))
    assert one.row_ids == same.row_ids
    assert one.fingerprint == same.fingerprint
    assert one.row_ids != other.row_ids
    assert one.fingerprint != other.fingerprint


def test_generators_of_different_scopes_differ():
    scopes = [("dataset",), ("subsets", "fit", 0), ("subsets", "fit", 1), ("subsets", "fi", "t0")]
    first = {seeded_generator(seed, *scope).integers(2**63) for seed in (0, 1) for scope in scopes}
    assert len(first) == 2 * len(scopes)


@pytest.mark.parametrize(
    ("table", "config", "message"),
    [
        pytest.param(
            table_of([0, 1, 0, 1, 0, 1], {"height": [1.0, None, 3.0, math.nan, 5.0, math.inf]}),
            DatasetConfig(),
            "mine: column 'height' holds inf in row 5, expected a finite number",
            id="cells",
        ),
        pytest.param(
            table_of([0, 1, None, 1, 0, 1]),
            DatasetConfig(),
            "column 'label' of mine has 1 missing value (first in row 2); fill or remove",
            id="label missing",
        ),
        pytest.param(
            table_of([1.0, math.nan, 2.0, 3.0], classes=()),
            DatasetConfig(),
            "column 'label' of mine has 1 missing or not finite value (first in row 1); "
            "fill or remove",
            id="number missing",
        ),
        pytest.param(
            table_of([1] * 6),
            DatasetConfig(),
            "the label 'label' of mine has one class ('1' in all 6 rows); "
            "a classifier needs at least two",
            id="one class",
        ),
        pytest.param(
            table_of([0, 1, 2, 0]),
            DatasetConfig(),
            "the label 'label' of mine holds '2', expected one of 0, 1",
            id="unknown class",
        ),
        pytest.param(
            table_of([0, 1, 0, 1], {"job": [[1], [2], [3], [4]]}),
            DatasetConfig(),
            "mine: column 'job' holds List(Int64), expected numbers, text, true and false, or dates; "
            "convert it, or drop it (dataset.drop)",
            id="lists",
        ),
        pytest.param(
            table_of(list("abcd") * 5, classes=("a", "b", "c", "d")),
            DatasetConfig(points=3, test=3),
            "3 training rows (dataset.points) are fewer than the 4 classes of mine; set at least 4",
            id="more classes than points",
        ),
    ],
)
def test_bad_tables_are_refused_in_one_line(table, config, message):
    with pytest.raises(InvalidInput) as error:
        prepare_table(table, config)
    assert str(error.value) == message


SPLITS = [
    (
        {"points": 18, "test": 5},
        ", but dataset.points sets 18 training rows and dataset.test 5 test rows; set fewer",
    ),
    (
        {"points": 20},
        ", but dataset.points sets 20 training rows and dataset.test at least 1 test rows; set fewer",
    ),
    (
        {"test": 18},
        ": with 18 for testing (dataset.test) fewer than 3 are left to train on; set fewer test rows",
    ),
]


@pytest.mark.parametrize(("sizes", "reason"), SPLITS)
def test_more_training_and_test_rows_than_rows_are_refused(sizes, reason):
    with pytest.raises(InvalidInput) as error:
        prepare_table(table_of([0, 1] * 10), DatasetConfig(**sizes))
    assert str(error.value) == f"mine has 20 rows{reason}"


@pytest.mark.parametrize("wrong", [{"points": 2}, {"test": 0}, {"points": "300"}, {"rows": 3}])
def test_the_config_refuses(wrong):
    with pytest.raises(ValidationError):
        DatasetConfig(**wrong)


def test_auto_takes_what_is_left():
    table = table_of([0, 1] * 5, points=6, test=3)
    assert len(prepare_table(table, DatasetConfig(points=8)).test_labels) == 2
    assert len(prepare_table(table, DatasetConfig(test=6)).labels) == 4


def test_planted_labels_are_wrong_and_remembered():
    clean = prepare(DatasetConfig(source="digits"))
    planted = prepare(DatasetConfig(source="digits", flip=0.1))
    assert int(planted.mislabelled.sum()) == 50
    assert torch.equal(planted.original_labels, clean.labels)
    # The split, the features and the test rows know nothing of it.
    assert planted.row_ids == clean.row_ids
    assert torch.equal(planted.features, clean.features)
    assert torch.equal(planted.test_labels, clean.test_labels)
    assert clean.mislabelled is None
    assert planted.fingerprint != clean.fingerprint
    told = planted.rows[planted.label_name].cast(str).to_list()
    assert told == [planted.classes[index] for index in planted.labels]
    assert planted.rows.schema == clean.rows.schema


def test_planted_labels_are_spread_over_the_other_classes():
    shifts = torch.zeros(10)
    for seed in range(20):
        planted = prepare(DatasetConfig(source="digits", flip=0.9, seed=seed))
        wrong = planted.mislabelled
        moved = (planted.labels - planted.original_labels)[wrong] % 10
        shifts += torch.bincount(moved, minlength=10)
    assert shifts[0] == 0
    # 9,000 draws of a chance of 1/9: a relative standard error of 3%, four of them.
    assert shifts[1:].numpy() == pytest.approx(1000, rel=0.12)


@pytest.mark.parametrize(("flip", "count"), [(0.0001, 1), (0.1, 30), (0.2, 60), (0.995, 298)])
def test_the_share_of_planted_labels(flip, count):
    assert int(prepare(DatasetConfig(flip=flip)).mislabelled.sum()) == count


def test_the_same_seed_plants_the_same_labels():
    first, again, other = (
        prepare(DatasetConfig(source="iris", flip=0.2, seed=seed)) for seed in (0, 0, 1)
    )
    assert first.fingerprint == again.fingerprint
    assert not torch.equal(first.mislabelled, other.mislabelled)


def test_labels_that_cannot_be_wrong():
    with pytest.raises(InvalidInput, match="is a number and has no wrong class"):
        prepare(DatasetConfig(source="diabetes", flip=0.1))
    # Of six rows one is drawn; with this seed it is the only one of its class.
    table = table_of(["0"] * 8 + ["1"])
    with pytest.raises(InvalidInput, match="leaves no row of class '1' among 6"):
        prepare_table(table, DatasetConfig(flip=0.1, seed=0))
    for flip in (-0.1, 1.0, "0.1"):
        with pytest.raises(ValidationError):
            DatasetConfig(flip=flip)
