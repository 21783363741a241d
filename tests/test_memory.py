"""Requests that need more memory than there is are refused in one line, before any work."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from modelpred import memory
from modelpred.api import ModelPred
from modelpred.errors import InvalidInput
from modelpred.memory import UNCHECKED, available_memory, require_memory, size_text
from modelpred.params import Params
from modelpred.predictor import PredictorConfig, fit_predictor
from modelpred.studies import calibration, edits, labels, lds, memorization, selection, valuation
from modelpred.subsets import (
    DESIGNS,
    ROLES,
    SubsetsConfig,
    draw,
    draw_subsets,
)
from modelpred.subsets.designs import UNBOUNDED, every_subset, support_size
from modelpred.targets import target_model, train_targets
from modelpred.targets.points import points_of
from tests.studies.conftest import make_context

HUGE = st.integers(12, 60).flatmap(lambda digits: st.integers(10**digits, 10 ** (digits + 1)))
QUICK = 1.0  # seconds of processor time


def refusal(call) -> str:
    """The one line that refuses a call, which must come at once."""
    began = time.process_time()
    with pytest.raises((InvalidInput, ValidationError)) as refused:
        call()
    assert time.process_time() - began < QUICK
    if isinstance(refused.value, ValidationError):  # params.yaml: one line for each key
        (problem,) = refused.value.errors()
        return problem["msg"]
    line = str(refused.value)
    assert len(line.splitlines()) == 1
    return line


# --- what there is -----------------------------------------------------------------------------


@given(st.integers(0, 10**40), st.integers(0, 10**13))
@example(UNCHECKED, 0)
def test_work_is_refused_if_it_needs_more_than_there_is(needed, available):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "available_memory", lambda: available)
        if needed <= max(available, UNCHECKED):
            require_memory(needed, what="work")
            return
        line = refusal(lambda: require_memory(needed, what="3 models of 4 rows"))
    assert line == (
        f"3 models of 4 rows: about {size_text(needed)} of memory are needed, and "
        f"{size_text(available)} are available; ask for less"
    )


@given(st.integers(0, 10**60))
def test_sizes_are_told_to_their_leading_digits(size):
    number, unit = size_text(size).rsplit(" ", 1)
    value = float(number.replace(",", "")) * {"bytes": 1, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert value <= size * 1.01
    assert size < 10 * value if "e" in number else size <= value * 1.01
    assert len(number) < 10


LIMIT = st.one_of(st.just("max"), st.integers(10**6, 10**12))


@given(
    st.lists(st.tuples(LIMIT, st.integers(0, 10**7), st.integers(0, 10**6)), max_size=4),
    st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_the_tightest_control_group_counts(tmp_path_factory, levels, old):
    """Each level: limit, use, and cached files that were not read for a while."""
    place = tmp_path_factory.mktemp("groups")
    names = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes")
        if old
        else ("memory.max", "memory.current")
    )
    root = place / "root"
    folder = root / "memory" if old else root
    path = ""
    expected: list[int] = []
    for number, (limit, used, cached) in enumerate(levels):
        path += f"/group{number}"
        (folder / path[1:]).mkdir(parents=True)
        (folder / path[1:] / names[0]).write_text(f"{limit}\n")
        (folder / path[1:] / names[1]).write_text(f"{used}\n")
        (folder / path[1:] / "memory.stat").write_text(f"anon 7\ninactive_file {cached}\n")
        if limit != "max":
            expected.append(limit - used + cached)
    line = f"3:cpu,memory:{path}/\n2:cpu:/\n" if old else f"0::{path}/\n"
    (place / "cgroup").write_text(line)
    assert sorted(memory._control_groups(place / "cgroup", root)) == sorted(expected)


def test_this_machine_has_memory_and_no_more_than_it_has():
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert UNCHECKED < available_memory() <= total


# --- subsets -----------------------------------------------------------------------------------


@given(
    st.sampled_from(ROLES), st.sampled_from(DESIGNS), HUGE, st.sampled_from([3, 5, 67, 2000, 10**6])
)
@settings(max_examples=60, deadline=None)
def test_more_subsets_than_fit_are_refused(role, design, count, points):
    counts = {name: {"uniform": 1} for name in ROLES} | {role: {design: count}}
    line = refusal(lambda: draw_subsets(SubsetsConfig(**counts), points=points))
    assert f"subsets of {points:,} rows: about" in line
    generator = np.random.default_rng(0)
    refusal(lambda: draw(design, points=points, count=count, generator=generator))


@pytest.mark.parametrize("design", DESIGNS)
def test_the_number_of_distinct_subsets_is_exact_until_nobody_can_ask_for_all(design):
    for points in range(3, 8):
        found = {row.tobytes() for row in every_subset(design, points)}
        assert support_size(design, points) == len(found)
    began = time.process_time()
    sizes = [support_size(design, 10**exponent) for exponent in range(2, 8)]
    assert time.process_time() - began < QUICK
    few = {
        "leave_one_out": [10**exponent for exponent in range(2, 8)],
        "addition": [2**50 - 1] + [UNBOUNDED] * 5,
    }
    assert sizes == few.get(design, [UNBOUNDED] * 6)


@given(st.sampled_from(DESIGNS), st.integers(3, 9), st.floats(0.5, 1.2), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_draws_of_nearly_all_subsets_of_a_small_pool_end(design, points, share, seed):
    count = max(1, min(1500, round(share * support_size(design, points))))
    held_out = {"leave_one_out": 1}
    config = SubsetsConfig(fit={design: count}, validation=held_out, test=held_out, seed=seed)
    try:
        drawn = draw_subsets(config, points=points)
    except InvalidInput:
        # Distinct subsets that are left: those of leave_one_out may be of this design, too.
        assert count > support_size(design, points) - 3
        return
    keys = {row.numpy().tobytes() for row in drawn.weights.to(torch.int32)}
    assert len(keys) == len(drawn) == count + 2


# --- training, fit and studies -----------------------------------------------------------------


@given(HUGE, st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_wider_networks_than_fit_are_refused(hidden, subsets):
    features, given_labels = np.eye(6), np.arange(6) % 2
    model = target_model("mlp", hidden=hidden)
    weights = np.ones((subsets, 6))
    line = refusal(lambda: train_targets(model, features, given_labels, weights))
    assert f"{subsets} mlp models of" in line
    refusal(lambda: ModelPred("mlp", hidden=hidden).fit(features, given_labels))


@given(st.sampled_from(["width", "step_width", "steps"]), HUGE)
@settings(max_examples=30, deadline=None)
def test_larger_predictors_than_fit_are_refused(name, size):
    config = PredictorConfig(**{name: size})
    points = points_of(np.eye(6), np.arange(6) % 2, 2)
    weights = torch.ones(4, 6)
    parameters = torch.zeros(4, 7, dtype=torch.float64)
    model = target_model("logistic")
    line = refusal(lambda: fit_predictor(config, model, points, weights, parameters))
    assert f"{size:,}" in line
    mp = ModelPred("logistic", subsets=50, predictor=config)
    assert f"{size:,}" in refusal(lambda: mp.fit(np.eye(12), np.arange(12) % 2))


CONTEXT = make_context("logistic")
DRAWS = {
    edits: ("repeats", "timings"),
    lds: ("subsets",),
    valuation: ("permutations", "truth_permutations"),
    labels: ("permutations",),
    selection: ("permutations", "random"),
    memorization: ("subsets",),
    calibration: ("resamples", "bins", "tables"),
}


@pytest.mark.parametrize(
    ("study", "name"), [(study, name) for study, names in DRAWS.items() for name in names]
)
@given(number=HUGE)
@settings(max_examples=4, deadline=None, phases=[Phase.generate])  # no shrinking of seconds
def test_more_draws_of_a_study_than_fit_are_refused(study, name, number):
    number *= 2 if "permutations" in name else 1  # permutations are even
    kind = Params.model_fields[study.STUDY].annotation
    assert kind is not None
    refusal(lambda: study.run(kind(**{name: number}), CONTEXT))


@given(number=HUGE)
@settings(max_examples=10, deadline=None)
def test_sizes_beyond_the_rows_are_the_rows(number):
    config = edits.EditsConfig(step=number, added=number)
    generator = np.random.default_rng(0)
    assert len(edits.deletions(config, points=9, generator=generator)) == config.repeats
    sizes = selection._sizes(selection.SelectionConfig(step=1 / number), 9)
    assert sizes == list(range(1, 10))


@given(st.integers(1, 60), st.floats(1e-4, 0.5))
def test_sizes_of_the_curves_are_the_rounded_shares(pool, step):
    shares = np.arange(1, int(1 / step + 1e-9) + 1) * step
    config = selection.SelectionConfig(step=step)
    expected = {max(1, round(share * pool)) for share in shares}
    expected |= {selection.headline_size(config, pool), pool}
    assert selection._sizes(config, pool) == sorted(expected)
