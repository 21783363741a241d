"""A trial counts each part by its own clock, and the estimate adds the parts up as the stages do."""

import itertools
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.check import check, config_of
from modelpred.check.budget import (
    FEWEST_ROWS,
    STEEPEST,
    trial_within,
)
from modelpred.check.estimate import (
    Speeds,
    estimate,
    scaled,
    usual_subsets,
)
from modelpred.check.trial import BLOCK, FIRST, gain_seconds, speeds
from modelpred.dataset import prepare_table
from modelpred.dataset.samples import some_rows
from modelpred.studies.row_gains import cost_of_gains
from modelpred.subsets import ROLES, SubsetsConfig, blocks, draw_subsets
from modelpred.targets import TargetsConfig, points_of, target_model

NOTHING = Speeds(
    subsets=250,
    start=0.0,
    drawing=0.0,
    training=0.0,
    preparing=0.0,
    epoch=0.0,
    compared=0.0,
    answering=(),
    predicting=0.0,
    judging=0.0,
    gains=0.0,
    shard_bytes=0.0,
    subset_bytes=0.0,
)


def counting(step: float):
    """A clock that advances by one step at each call."""
    return map(step.__mul__, itertools.count()).__next__


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    place = tmp_path_factory.mktemp("check") / "people.csv"
    generator = np.random.default_rng(0)
    age = generator.integers(18, 90, 80)
    table = pl.DataFrame({"age": age, "work": ["a", "b"] * 40, "rich": (age > 50).tolist()})
    table.write_csv(place)
    return check(config_of(source=str(place), label="rich", test="auto", drop=(), categories=()))


@pytest.fixture(scope="module")
def measured(checked):
    """A trial in which every timed step takes 6 seconds."""
    dataset = prepare_table(checked.table, checked.config)
    return speeds(dataset, usual_subsets(6500), start=1.0, clock=counting(6.0))


def test_a_slow_machine_tries_few_subsets(measured):
    # Training the first 50 took 6 s: a block of 250 would take 30.
    assert abs(measured.subsets - FIRST) <= 10
    assert measured.training == 6 / measured.subsets


def test_a_fast_machine_tries_a_whole_block(checked):
    dataset = prepare_table(checked.table, checked.config)
    found = speeds(dataset, usual_subsets(6500), start=1.0, clock=counting(1e-3))
    assert abs(found.subsets - BLOCK) <= 10
    assert found.training == pytest.approx(1e-3 / found.subsets)


def test_a_table_of_numbers_has_no_epochs_to_time(tmp_path):
    cells = np.random.default_rng(1).normal(size=(60, 2))
    place = tmp_path / "prices.csv"
    pl.DataFrame({"size": cells[:, 0], "price": 3e8 + 1e8 * cells.sum(axis=1)}).write_csv(place)
    found = check(config_of(source=str(place), label="price", test="auto", drop=(), categories=()))
    dataset = prepare_table(found.table, found.config)
    trial = speeds(dataset, usual_subsets(6500), start=1.0, clock=counting(6.0))
    assert trial.epoch == 0
    assert trial.preparing == 6


def test_each_part_has_seconds_of_its_own(measured):
    tested = round(1 / (measured.judging / 6))
    assert measured.answering == pytest.approx([6 / tested] * len(measured.answering))
    # The predictor, its stages before the last, 3 refinements, 5 rivals, 2 retrainings.
    assert len(measured.answering) > 11
    assert measured.compared == 6
    assert measured.preparing == 0  # one step until the first epoch ends, which is the epoch's own
    assert measured.epoch * measured.subsets > 6  # of the subsets of the fit alone


def test_the_estimate_adds_the_parts_as_the_stages_do():
    planned = SubsetsConfig()  # 5,000 to fit, 250 to validate, 1,250 to test; 8 kinds, 27 blocks
    parts = {
        "start": (1.0, {"dataset": 4, "subsets": 2, "targets": 3, "predictor": 2}),
        "drawing": (1.0, {"subsets": 16 + 4 + 1 + 1 + 2 + 2 + 1}),
        "training": (1.0, {"targets": 6500 / 4}),
        "preparing": (1.0, {"predictor": 1}),
        "epoch": (1.0, {"predictor": 20 * 5000}),
        "compared": (1.0, {"predictor": 1}),
        # Asked once where an answer takes long, and up to four times where it is quick.
        "answering": ((1.0, 1e-6), {"predictor": 1250 + 4 * 1250e-6}),
        "judging": (0.0, {}),
        "shard_bytes": (1.0, {"disk": 3 * 6500}),
        "subset_bytes": (1.0, {"disk": 2 * 6500}),
    }
    for part, (value, expected) in parts.items():
        single = Speeds(**{**NOTHING.__dict__, part: value})
        found = estimate(single, planned, cores=4, epochs=20)
        for stage in ("dataset", "subsets", "targets", "predictor", "disk"):
            whole = expected.get(stage, 0)
            assert getattr(found, stage) == pytest.approx(whole), (part, stage)


def test_no_more_cores_help_than_there_are_blocks():
    planned = scaled(SubsetsConfig(block=10_000), 700)
    count = len(draw_subsets(planned, points=40))
    single = Speeds(**{**NOTHING.__dict__, "training": 1.0})
    found = estimate(single, planned, cores=64, epochs=20)
    kinds = len(blocks(draw_subsets(planned, points=40), 10_000))
    assert found.targets == pytest.approx(count / kinds)


def test_more_subsets_keep_their_proportions():
    usual, tenfold = SubsetsConfig(scale=1.0), usual_subsets(65_000)
    assert usual_subsets(6500) == usual
    for role in ROLES:
        counts = getattr(usual, role)
        assert getattr(tenfold, role) == {name: 10 * count for name, count in counts.items()}


def of_rows(dataset, count):
    """The data set with so many rows that are all alike."""
    features = dataset.features[:1].expand(count, -1)
    return replace(dataset, features=features, labels=dataset.labels[:1].expand(count))


class Machine:
    """A clock, and trials that take base + each * rows^power seconds."""

    def __init__(self, base, each, power):
        self.now, self.sizes = 0.0, []
        self.seconds = lambda rows: base + each * rows**power

    def measure(self, dataset):
        """What a trial of the rows says."""
        rows = len(dataset.labels)
        self.sizes.append(rows)
        taken = self.seconds(rows)
        self.now += taken
        parts = {"training": taken, "answering": (taken,), "shard_bytes": 8.0 * rows}
        return replace(NOTHING, **parts)


@given(
    rows=st.integers(10, 200_000),
    growth=st.tuples(
        st.sampled_from([0.0, 0.5, 3.0]), st.floats(1e-7, 1e-2), st.floats(0.1, STEEPEST)
    ),
    seconds=st.floats(0, 120),
)
@settings(max_examples=150, deadline=None)
def test_trials_end_in_time_and_say_what_they_saw(checked, rows, growth, seconds):
    base, _, power = growth
    machine = Machine(*growth)
    dataset = prepare_table(checked.table, checked.config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modelpred.check.budget.some_rows", of_rows)
        patch.setattr("modelpred.check.budget.trained_alone", lambda *_, **__: np.inf)
        found = trial_within(
            of_rows(dataset, rows), machine.measure, seconds=seconds, targets=TargetsConfig(),
            clock=lambda: machine.now,
        )  # fmt: skip
    first = machine.seconds(min(rows, FEWEST_ROWS))
    assert machine.sizes[0] == min(rows, FEWEST_ROWS)
    assert machine.sizes == sorted({*machine.sizes})
    assert found.tried == machine.sizes[-1] <= rows
    # Nothing grows faster than STEEPEST, so that no trial after the first goes over the limit.
    assert found.seconds <= max(first, seconds) * (1 + 1e-9)
    truth, expected = machine.seconds(rows), found.at(rows)
    if found.tried == rows:
        assert expected.training == truth
        return
    assert expected.shard_bytes == pytest.approx(8.0 * rows)
    assert expected.answering == (expected.training,)
    assert found.at(rows // 2).training <= expected.training
    if base == 0:
        # The usual power counts as much as a doubling of the rows.
        ratio = np.log(machine.sizes[-1] / machine.sizes[max(-2, -len(machine.sizes))])
        off = abs(power - 1) * np.log(2) / (ratio + np.log(2)) * np.log(rows / found.tried)
        assert abs(np.log(expected.training / truth)) <= off + 1e-6


@given(st.integers(2, 6), st.integers(10, 60), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_some_rows_hold_every_class(checked, classes, size, seed):
    dataset = prepare_table(checked.table, checked.config)
    labels = np.zeros(len(dataset.labels), dtype=np.int64)
    rare = np.random.default_rng(seed).choice(len(labels), classes - 1, replace=False)
    labels[rare] = range(1, classes)
    whole = replace(dataset, labels=torch.from_numpy(labels), classes=tuple("abcdef"[:classes]))
    part = some_rows(whole, size)
    assert len(part.labels) == len(part.features) == len(part.row_ids) == size
    assert {*part.labels.tolist()} == {*range(classes)}
    place = [whole.row_ids.index(name) for name in part.row_ids]
    assert torch.equal(whole.features[place], part.features)


@pytest.mark.parametrize(("seconds", "tried"), [(1e6, 320), (0.0, FEWEST_ROWS)])
def test_all_rows_are_tried_at_once_where_models_are_quick(tmp_path, seconds, tried):
    cells = np.random.default_rng(1).normal(size=(400, 2))
    place = tmp_path / "t.csv"
    label = np.where(cells.sum(axis=1) > 0, "u", "v")
    pl.DataFrame({"a": cells[:, 0], "b": cells[:, 1], "y": label}).write_csv(place)
    found = check(config_of(source=str(place), label="y", test="auto", drop=(), categories=()))
    dataset = prepare_table(found.table, found.config)
    sizes = []

    def measure(part):
        sizes.append(len(part.labels))
        return NOTHING

    trial_within(dataset, measure, seconds=seconds, targets=TargetsConfig())
    assert sizes[0] == tried


@pytest.mark.parametrize(("name", "classes"), [("logistic", 2), ("softmax", 3), ("mlp", 2)])
def test_gains_of_several_scores_are_counted_as_the_sampler_counts_them(name, classes):
    draws = np.random.default_rng(0)
    cells, labels = draws.normal(size=(40, 3)), np.arange(40) % classes
    points = points_of(cells, labels, classes)
    step = 1e-3  # of each call of the clock
    seconds, count = gain_seconds(
        target_model(name), points, points, tolerance=1e-6, clock=counting(step)
    )
    outputs = classes if name == "softmax" else 1
    assert count == cost_of_gains(outputs)
    assert (seconds > 0) == (name != "mlp")
