"""Sections of the report from real results of the studies: names of rows and columns, and numbers."""

import json
from dataclasses import asdict, replace
from functools import cache

import polars as pl
import pytest
import torch

from modelpred.dataset import DatasetConfig, prepare
from modelpred.refits import Influence, Retraining
from modelpred.report import write_report
from modelpred.report.answers import NAMED, answers
from modelpred.report.suspects import judgement
from modelpred.report.words import small_percent
from modelpred.run_summary import WIDTH, answer_of
from modelpred.studies import STUDIES
from modelpred.studies.context import StudyContext
from modelpred.studies.labels import DEFAULT_METHOD
from modelpred.targets import dataset_points, dataset_test_points, target_model
from tests.studies.small import run_small

CHANGED = {
    "valuation": {"group": "half"},
    "selection": {"random": 3},
    "calibration": {"resamples": 5},
    "attribution": {"explained": 4},
}


def inputs_of(example, family, source):
    """The example with studies that were run on that table."""
    dataset, studies = studied(family, source)
    return replace(example, dataset=dataset, studies=studies)


@cache
def studied(family, source):
    """The table, and the results of all studies on it."""
    dataset = prepare(DatasetConfig(source=source, flip=0.1 if source == "wine" else 0.0))
    model = target_model(family)
    points = dataset_points(dataset)
    truth = Retraining(model, points, tolerance=1e-9)
    full = truth(torch.ones(1, len(dataset.row_ids)))[0]
    context = StudyContext(
        truth,
        dataset_test_points(dataset),
        {"predictor": truth, "influence": Influence(model, points, full)},
        dataset.row_ids,
        feature_names=dataset.feature_names,
        class_names=dataset.classes,
        rows=dataset.rows.with_columns(half=pl.int_range(pl.len()) % 2),
        mislabelled=dataset.mislabelled,
    )
    return dataset, {name: run_small(name, context, **CHANGED.get(name, {})) for name in STUDIES}


def check_answers(inputs):
    """The answers say what the tables of the studies say, counted here in another way."""
    labels, values, removal, trust = answers(inputs)
    suspects = inputs.studies["labels"].tables["suspects"]
    assert [item.name for item in labels.items] == [f"Row {row}" for row in suspects["row_id"][:5]]
    if inputs.dataset.classes:
        assert f"{suspects['cutoff'].to_list().count(True)} row" in labels.words
    rows = inputs.studies["valuation"].tables["values"].to_dicts()
    signs = [
        (row["value"] > 0) - (row["value"] < 0)
        for row in rows
        if abs(row["value"]) > 2 * row["standard_error"]
    ]
    assert values.words.startswith(f"{signs.count(1)} rows help and {signs.count(-1)} hurt")
    assert "Without the" in removal.words
    assert "rows with the lowest values" in removal.words
    assert ("of the time" in trust.words) == bool(inputs.dataset.classes)
    found = (labels, values, removal, trust)
    for answer in found:  # as the summary reads it from the report's folder
        read = answer_of(json.loads(json.dumps(asdict(answer))))
        assert (read.words, read.brief) == (answer.words, tuple(answer.brief))
        assert read.items == tuple((item.name, item.words) for item in answer.items)
    assert [len(answer.brief) for answer in found] == [2, 2, 1, 1]
    assert all(len(line) <= WIDTH for answer in found for line in answer.brief)
    assert all(f"row {row} (" in labels.brief[1] for row in suspects["row_id"][:NAMED])
    assert values.brief[0] == values.words.removesuffix(".")


@pytest.mark.parametrize(
    ("family", "source"), [("logistic", "iris"), ("softmax", "wine"), ("ridge", "diabetes")]
)
def test_every_section_shows_what_was_found(example, tmp_path, family, source):
    inputs = inputs_of(example, family, source)
    check_answers(inputs)
    page = write_report(inputs, tmp_path).read_text(encoding="utf-8")
    assert "correlation between two sets of retrained models" in page
    rows = inputs.studies["memorization"].tables["rows"].sort("rank")
    assert f"Row {rows['row_id'][0]}" in page
    largest = max(
        inputs.studies["attribution"].tables["parameters"].iter_rows(named=True),
        key=lambda row: abs(row["value"]) if row["feature"] != "intercept" else 0,
    )
    assert largest["feature"] in page
    flips = "Rows whose removal flips a prediction" in page
    assert flips == (family != "ridge")
    assert ("Temperature scaling" in page) == (family != "ridge")
    assert ("Coverage of 90% intervals on simulated tables" in page) == (family != "ridge")
    assert ("wrong labels were planted. With predicted models" in page) == (source == "wine")
    assert ("No wrong labels were planted" in page) == (source != "wine")
    suspect = inputs.studies["labels"].tables["suspects"]["row_id"][0]
    assert f"Row {suspect}" in page
    shown = (
        "greedily selected, the",
        "Least valuable rows selected first",
        "Values of groups of rows",
        "Additions, mean over all sizes",
        "Queries until ModelPred is cheaper",
        "Linear datamodelling score",
        "ModelPred and the other methods at equal error",
    )
    assert [words for words in shown if words not in page] == []


def test_a_suspect_of_several_classes_has_a_suggestion_and_a_share(example):
    inputs = inputs_of(example, "softmax", "wine")
    rows = inputs.studies["labels"].tables["suspects"].to_dicts()
    names = inputs.dataset.classes
    given = dict(zip(inputs.dataset.row_ids, inputs.dataset.labels.tolist(), strict=True))
    doubted = [row for row in rows if row[DEFAULT_METHOD] < 0]
    assert doubted
    for row in rows:
        label = names[given[row["row_id"]]]
        words = judgement(row, label, inputs)
        assert words.startswith(f"give this label {small_percent(row['probability'])}")
        other = names[row["suggested"]]
        # The score compares the label with the likeliest other class, on the same models.
        assert words.endswith(f" and suggest {other}") == (row in doubted and other != label)
