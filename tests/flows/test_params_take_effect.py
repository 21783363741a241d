"""A changed value in params.yaml changes the results of each stage that dvc.yaml lists it for, and of no other stage.

Each stage runs on a small table with one value changed, on inputs that stay as they are.
"""

import copy
import importlib
import json
import re
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from flows import runners
from flows.artifacts import STAGES
from modelpred.params import Params
from modelpred.studies import STUDIES
from modelpred.targets.store import train_block
from tests.flows.test_graph import listed_params
from tests.projects import write_params
from tests.studies.small import SMALL

pytestmark = pytest.mark.slow  # 130 runs of a stage, two minutes of processor time

BASE = {
    "dataset": {"source": "data/t.csv", "watch": "data", "label": "y"},
    "subsets": {
        "fit": {"uniform": 120, "bootstrap": 30},
        "validation": {"uniform": 20},
        "test": {"uniform": 30, "deletion": 20},
        "block": 25,
    },
    "targets": {"model": "logistic"},
    "predictor": {"epochs": 6, "steps": 2, "patience": 3},
    **SMALL,
}
MLP = {"targets": {"model": "mlp"}}
# A budget that is large enough to stop early.
SAMPLED = {"valuation": {"permutations": 400, "sampler": "antithetic", "truth_permutations": 0}}
# Another value of each key, and what it is of use with. None: it names files or revisions, which have tests of their own
# (test_revisions.py, test_own_target.py, tests/dataset), or is used by dvc.yaml alone.
CHANGES = {
    "dataset": {
        "source": None, "file": None, "watch": None, "since": None, "row_id": "name", "label": "c",
        "group": "g", "drop": ["z"], "categories": ["q"], "dates": None, "levels": 3,
        "delimiter": None, "max_points": 60, "points": 50, "test": 0.4, "scaling": "none",
        "flip": 0.2, "seed": 3,
    },
    "subsets": {
        "fit": {"uniform": 100}, "validation": {"uniform": 10}, "test": {"uniform": 20},
        "grown": None, "scale": 0.5, "block": 40, "seed": 4,
    },
    "targets": {
        "model": "svm", "settings": None, "code": None, "tolerance": 1e-3, "C": 3.0,
        "intercept": "penalised", "hidden": (MLP, 8), "weight_decay": (MLP, 0.01),
        "learning_rate": (MLP, 0.2), "momentum": (MLP, 0.5), "steps": (MLP, 60), "seed": (MLP, 2),
        "precision": (MLP, "float64"),
    },
    "predictor": {
        "network": "newton", "start": None, "epochs": 4,
        "patience": ({"predictor": {"epochs": 200, "learning_rate": 0.3}}, 1), "batch": 16,
        "learning_rate": 0.001, "optimality": 0.7, "utility": 0.7, "width": 16, "steps": 1,
        "step_width": 8, "seed": 5,
    },
    "edits": {"smallest": 0.8, "step": 9, "repeats": 3, "added": 5, "timings": None, "seed": 2},
    "lds": {"subsets": 40, "share": 0.7, "seed": 1},
    "valuation": {
        "engine": "exact", "accuracy": None, "semivalue": "banzhaf",
        "alpha": ({"valuation": {"semivalue": "beta_shapley"}}, 2.0),
        "beta": ({"valuation": {"semivalue": "beta_shapley"}}, 3.0), "sampler": "permutation",
        "permutations": 8, "truth_permutations": 6, "error": (SAMPLED, 10.0),
        "reliability": (SAMPLED, 0.1), "small": 0.4, "utility": "accuracy", "group": "g",
        "refine": 0.0, "rivals": False, "seed": 7,
    },
    "labels": {"engine": "exact", "accuracy": None, "permutations": 8, "rivals": False, "seed": 7},
    "selection": {
        "engine": "exact", "accuracy": None, "share": 0.5, "step": 0.2, "quota": "y",
        "permutations": 8, "stride": None, "swaps": None, "random": 3, "rivals": False, "seed": 7,
    },
    "memorization": {
        "engine": "exact", "accuracy": None, "subsets": 30, "share": 0.5, "strongest": 5,
        "rivals": False, "seed": 7,
    },
    "calibration": {"resamples": 20, "bins": 4, "refine": 0.0, "tables": 0, "seed": 7},
    "attribution": {
        "rows": 2, "explained": 3, "largest": 0.1, "refine": 0.0, "methods": ["influence"], "seed": 7,
    },
    "report": {"rows": 2},
}  # fmt: skip
# Timings, and the settings themselves: what a run records of its params is no effect of them.
TIMED = re.compile("second|time|faster|speed|cost|break_even|busy|summary")
RECORDS = {"SHA256SUMS", "settings.json", "history.json", "predictor.json", "break_even.parquet"}


def contents(stage):
    """What the stage wrote, without timings, as one text for each file."""
    folder = Path("artifacts") / ("studies" if stage in STUDIES else "") / stage
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name in RECORDS or path.suffix not in (".json", ".parquet", ".safetensors"):
            continue
        if path.suffix == ".json":
            found[path.name] = json.dumps(without_timings(json.loads(path.read_text())))
        elif path.suffix == ".parquet":
            table = pl.read_parquet(path).select(pl.exclude(f"^.*({TIMED.pattern}).*$"))
            metadata = dict(pq.read_schema(path).metadata or {})
            metadata.pop(b"ARROW:schema", None)
            found[path.name] = f"{table.to_dict(as_series=False)} {metadata}"
        else:
            found[path.name] = sha256(path.read_bytes()).hexdigest()
    if stage == "report":
        found["page"] = sha256((folder / "index.html").read_bytes()).hexdigest()
    return found


def without_timings(content):
    if isinstance(content, dict):
        return {k: without_timings(v) for k, v in content.items() if not TIMED.search(k)}
    return [without_timings(each) for each in content] if isinstance(content, list) else content


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A stage with changed settings, on the inputs of the unchanged ones."""
    place = tmp_path_factory.mktemp("effects")
    (place / "data").mkdir()
    draws = np.random.default_rng(0)
    rows = 120
    x, z, q = draws.normal(size=(3, rows))
    pl.DataFrame(
        {
            "name": [f"n{row}" for row in range(rows)],
            "x": x, "z": z, "c": draws.choice(list("abcdefgh"), rows),
            "g": [f"g{row % 6}" for row in range(rows)], "q": (q * 3).round().astype(int),
            "y": np.where(x + z / 2 + draws.normal(size=rows) > 0, "yes", "no"),
        }
    ).write_csv(place / "data" / "t.csv")  # fmt: skip

    def in_this_process(jobs, *, finished):
        del finished
        for job in jobs:
            train_block(job)

    def result(stage, changes):
        params = copy.deepcopy(BASE | {"dataset": BASE["dataset"] | {"drop": ["name"]}})
        for section, values in changes.items():
            params.setdefault(section, {}).update(values)
        write_params(place, params)
        if (place / "whole").is_dir():
            shutil.rmtree("artifacts")
            shutil.copytree("whole", "artifacts")
        module = importlib.import_module(f"flows.{'studies' if stage in STUDIES else stage}")
        module.run(stage) if stage in STUDIES else module.main()
        return contents(stage)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.delenv("MODELPRED_STORE", raising=False)
        patch.setattr(runners, "train_blocks", in_this_process)
        for stage in NAMES:
            result(stage, {})
        shutil.copytree("artifacts", "whole")
        yield result


NAMES = [*STAGES[:4], *STUDIES, "report"]


def lists(stage, section, key):
    return bool({section, f"{section}.{key}"} & set(listed_params(stage)))


def test_each_key_has_another_value_here():
    expected = {name: set(section) for name, section in Params().model_dump().items()}
    del expected["gates"]
    assert {name: set(keys) for name, keys in CHANGES.items()} == expected


@pytest.mark.parametrize("stage", NAMES)
def test_what_is_listed_changes_the_results(stage, run):
    own = {key: value for key, value in CHANGES[stage].items() if value is not None}
    tried = [(stage, key, value) for key, value in own.items() if lists(stage, stage, key)]
    if stage == "targets":
        tried.append(("subsets", "block", CHANGES["subsets"]["block"]))
    elif lists(stage, "targets", "tolerance"):
        # The study of single rows always retrains to at most 1e-9.
        tolerance = 1e-11 if stage == "attribution" else CHANGES["targets"]["tolerance"]
        tried.append(("targets", "tolerance", tolerance))
    unchanged = []
    for section, key, value in tried:
        given, changed = value if isinstance(value, tuple) else ({}, value)
        before = run(stage, given)
        after = run(stage, given | {section: given.get(section, {}) | {key: changed}})
        if before == after:
            unchanged.append(f"{section}.{key}")
    assert unchanged == []


@pytest.mark.parametrize("stage", NAMES)
def test_what_is_not_listed_changes_nothing(stage, run):
    """All other keys are changed at once."""
    others = {
        section: {
            key: value
            for key, value in keys.items()
            if value is not None and not isinstance(value, tuple) and not lists(stage, section, key)
        }
        for section, keys in CHANGES.items()
    }
    assert run(stage, others) == run(stage, {})
