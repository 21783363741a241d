"""What a ModelPred saved before comes back whole, and what it forgot is in no file that it writes."""

import dataclasses
import json
import struct

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from modelpred import InvalidInput, ModelPred
from modelpred.engine import Engine
from modelpred.predictor import PredictorConfig
from modelpred.subsets import SubsetsConfig
from tests.api.conftest import make_rows

FEW = SubsetsConfig(
    fit={"uniform": 16, "bootstrap": 4}, validation={"uniform": 5}, test={"uniform": 5}, seed=5
)
QUICK = PredictorConfig(epochs=1, width=8, step_width=4, steps=1)

# From the others, by the clock, or of the fit alone.
DERIVED = ("bound", "refining", "seconds", "full_seconds", "rounds", "why")


def members(value):
    """The named parts of an object; None of a plain value."""
    if isinstance(value, ModelPred):
        return vars(value)
    if isinstance(value, Engine):
        return {"problem": value.problem, "plan": value.plan, "prepared": value.prepared()}
    if isinstance(value, torch.nn.Module):
        return value.state_dict()
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: getattr(value, name) for name in names if name not in DERIVED}
    if isinstance(value, (tuple, list)):
        return {"length": len(value), **{str(place): part for place, part in enumerate(value)}}
    return value if isinstance(value, dict) else None


def plain(value):
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.contiguous().numpy().tobytes()
    return (value.schema, value.rows()) if isinstance(value, pl.DataFrame) else value


def parts(value, path="mp"):
    """Everything that an object holds, as pairs of a path and a plain value."""
    found = members(value)
    if found is None:
        yield path, plain(value)
    for name, part in (found or {}).items():
        yield from parts(part, f"{path}.{name}")


asked = st.fixed_dictionaries(
    {
        "target": st.sampled_from(["auto", "logistic", "softmax", "svm", "mlp", "ridge"]),
        "seed": st.integers(0, 2**63 - 1),
        "scaling": st.sampled_from(["standardise", "largest_row_norm", "none"]),
        "subsets": st.one_of(st.integers(20, 40), st.just(FEW)),
        "tolerance": st.sampled_from([1e-6, 1e-5]),
        "progress": st.just(False),
    }
)


@given(asked, st.sampled_from([None, 3, 11]), st.booleans())
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_loading_gives_back_everything(tmp_path_factory, options, network_seed, tested):
    if options["target"] == "mlp":
        options = options | {"hidden": 2, "steps": 5}
    predictor = None if network_seed is None else QUICK.model_copy(update={"seed": network_seed})
    classes = {"ridge": 0, "softmax": 3}.get(options["target"], 2)
    cells, labels = make_rows(classes, 30)
    if options["scaling"] == "none":
        cells = cells / [1, 10, 100]
    test = make_rows(classes, 12, seed=1) if tested else None
    mp = ModelPred(**options, predictor=predictor or QUICK).fit(cells, labels, test=test)
    folder = tmp_path_factory.mktemp("round")
    mp.save(folder)
    loaded = ModelPred.load(folder)
    found, expected = dict(parts(loaded)), dict(parts(mp))
    assert found.keys() == expected.keys()
    different = [path for path in found if found[path] != expected[path]]
    assert not different
    again = loaded.fit(cells, labels, test=test)
    np.testing.assert_array_equal(again.full_parameters, mp.full_parameters)
    weights = torch.ones(1, 30)
    assert torch.equal(again.predictor.predict(weights), mp.predictor.predict(weights))


def person(row, seed):
    """A table whose given row holds cells that no other has, an id and a level of its own."""
    draws = np.random.default_rng(seed)
    rows = 30
    table = pd.DataFrame(
        {
            "age": draws.normal(40, 10, rows),
            "work": draws.choice(["office", "shop"], rows),
            "since": pd.Timestamp("2024-01-01")
            + pd.to_timedelta(draws.integers(0, 900, rows), "D"),
        },
        index=[f"person-{number:04}" for number in draws.permutation(9999)[:rows]],
    )
    table.iloc[row, 0] = 61.0625 + float(draws.random())
    table.iloc[row, 1] = "astronaut"
    table.iloc[row, 2] = pd.Timestamp("2019-07-20")
    labels = np.array(["no", "yes"] * (rows // 2), dtype=object)
    return table, labels


def contents(folder):
    """Every file of a folder as bytes: as they are, and what Parquet and safetensors hold inside."""
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        yield path, path.read_bytes()
        if path.suffix == ".parquet":
            for cells in pl.read_parquet(path):
                yield path, json.dumps(cells.to_list(), default=str).encode()
                if cells.dtype.is_numeric() or isinstance(cells.dtype, pl.Array):
                    yield path, np.ascontiguousarray(cells.to_numpy()).tobytes()
        elif path.suffix == ".safetensors":
            for tensor in load_file(path).values():
                yield path, tensor.contiguous().numpy().tobytes()


def traces(mp, row):
    """What a row leaves in files: its id, its cells, and its features in both precisions."""
    cell = mp._fitted.dataset.rows["age"][row]
    scaled = mp._fitted.dataset.features[row].tolist()
    return [
        mp.row_ids[row].encode(),
        b"astronaut",
        b"2019-07-20",
        repr(cell).encode(),
        struct.pack("<d", cell),
        *(struct.pack("<d", value) for value in scaled if abs(value) not in (0, 1)),
    ]


@given(st.integers(0, 29), st.integers(0, 2**32 - 1))
@settings(max_examples=8, deadline=None)
def test_no_file_that_is_saved_afterwards_holds_a_forgotten_row(tmp_path_factory, row, seed):
    table, labels = person(row, seed)
    mp = ModelPred("logistic", subsets=20, predictor=QUICK, progress=False).fit(table, labels)
    folder = tmp_path_factory.mktemp("before")
    mp.save(folder)
    looked_for = traces(mp, row)
    before = [content for _, content in contents(folder)]
    assert all(any(trace in content for content in before) for trace in looked_for[:5])
    told = (mp if seed % 2 else (mp := ModelPred.load(folder))).forget([table.index[row]])
    assert told.rows == (table.index[row],)
    for place in ("the registry", "DVC's cache", "shards"):
        assert place in str(told)
    after = tmp_path_factory.mktemp("after")
    mp.save(after)
    ModelPred.load(after).save(after / "again")
    for path, content in contents(after):
        assert not [trace for trace in looked_for if trace in content], path


@given(st.sets(st.integers(0, 29), min_size=1, max_size=12), st.sampled_from([0, 2, 3]))
@settings(max_examples=12, deadline=None)
def test_forgetting_is_fitting_what_remains(tmp_path_factory, gone, classes):
    cells, labels = make_rows(classes, 30)
    ids = np.array([f"row {number}" for number in range(30)])
    test = make_rows(classes, 12, seed=1)
    kept = np.setdiff1d(np.arange(30), list(gone))
    options = {"subsets": 20, "predictor": QUICK, "progress": False, "seed": 4}
    mp = ModelPred(**options).fit(cells, labels, ids=ids, test=test)
    mp.forget(sorted(gone))
    fresh = ModelPred(**options).fit(cells[kept], labels[kept], ids=ids[kept], test=test)
    found, expected = dict(parts(mp)), dict(parts(fresh))
    different = [
        path for path in expected if not path.endswith("seconds") and found[path] != expected[path]
    ]
    assert not different


def test_test_rows_are_forgotten_by_their_ids():
    cells, labels = make_rows(2, 30)
    mp = ModelPred(subsets=20, predictor=QUICK, progress=False)
    mp.fit(cells, labels, test=make_rows(2, 12, seed=1))
    mp.forget(["test-3", 4])
    assert len(mp.row_ids) == 29
    assert "test-3" not in mp._fitted.dataset.test_row_ids
    assert len(mp._fitted.dataset.test_row_ids) == 11
    mp.forget([f"test-{row}" for row in range(12) if row != 3])
    assert mp._fitted.test_points is None


@pytest.mark.parametrize(
    ("rows", "told"),
    [([], "one or more rows"), (["nobody"], "no row has the id"), (range(40), "no row would remain"),
     ([1, 1], "more than once"), (["test-1", "test-1"], "more than once"), ("7", "in a list")],
)  # fmt: skip
def test_what_cannot_be_forgotten_leaves_all_as_it_was(logistic, rows, told):
    before = logistic._fitted
    with pytest.raises(InvalidInput, match=told):
        logistic.forget(rows)
    assert logistic._fitted is before


def test_a_class_that_would_be_the_last_stays(logistic):
    before = logistic._fitted
    gone = np.flatnonzero(before.dataset.labels.numpy() == 0)
    with pytest.raises(InvalidInput, match="holds one class"):
        logistic.forget(gone)
    assert logistic._fitted is before
