"""Versions side by side: changed rows by hand, drift against ranks by hand, scores against retraining."""

import numpy as np
import polars as pl
import pytest
import torch

from modelpred.dataset import DatasetConfig, prepare_table
from modelpred.dataset.tables import Table
from modelpred.predictor import PredictorConfig, fit_predictor
from modelpred.studies.versions import Version, cross_scores, drift, row_changes
from modelpred.subsets import SubsetsConfig, draw_subsets
from modelpred.targets import dataset_points, target_model, train_targets


def table(rows, *, held_out):
    """A table of one's own with these rows: id -> (x, y, label)."""
    frame = pl.DataFrame(
        {
            "row_id": list(rows),
            "x": [cells[0] for cells in rows.values()],
            "town": [cells[1] for cells in rows.values()],
            "rich": [cells[2] for cells in rows.values()],
        }
    )
    marked = tuple(row_id in held_out for row_id in rows)
    return Table("mine", frame, "rich", ("no", "yes"), len(rows), 1, "", held_out=marked)


def random_rows(count, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=count)
    rich = np.where(x + generator.normal(size=count) > 0, "yes", "no")
    towns = generator.choice(["a", "b", "c"], count)
    return {f"r{at}": (float(x[at]), str(towns[at]), str(rich[at])) for at in range(count)}


def version(name, rows, *, held_out):
    data = prepare_table(table(rows, held_out=held_out), DatasetConfig())
    model = target_model("logistic")
    points = dataset_points(data)
    config = SubsetsConfig(fit={"uniform": 60}, validation={"uniform": 5}, test={"uniform": 5})
    weights = draw_subsets(config, points=len(points.labels)).select(role="fit").weights.double()
    trained = train_targets(model, points.features, points.labels, weights, classes=2)
    fitted = fit_predictor(PredictorConfig(epochs=2), model, points, weights, trained.parameters)
    return Version(name, data, fitted)


def test_rows_that_appear_go_change_and_move_are_told():
    rows = random_rows(30)
    before = prepare_table(table(rows, held_out={"r0", "r1", "r2"}), DatasetConfig())
    later = {**rows, "r30": rows["r5"], "r7": (9.0, *rows["r7"][1:])}
    del later["r4"]
    after = prepare_table(table(later, held_out={"r0", "r1", "r9"}), DatasetConfig())
    changes = row_changes(before, after).sort("row_id")
    assert changes.rows() == [
        ("r2", "to pool", None),
        ("r30", "appeared", None),
        ("r4", "went", None),
        ("r7", "changed", "x"),
        ("r9", "to test", None),
    ]
    assert row_changes(before, before).is_empty()


def test_drift_is_that_of_ranks_of_the_shared_rows():
    before = pl.DataFrame({"row_id": list("abcdef"), "value": [1.0, 2, 3, 4, 5, 6]})
    after = pl.DataFrame({"row_id": list("gfedcb"), "value": [0.0, 60, 50, 40, 10, 20]})
    found = drift(("v1", before), ("v2", after), value="value")
    assert found.shared == 5
    # b, c, d, e, f had ranks 1 to 5 and have 2, 1, 3, 4, 5: 1 - 6 * 2 / (5 * 24)
    assert found.spearman.mean == pytest.approx(0.9)
    assert found.rows["row_id"].head(2).sort().to_list() == ["b", "c"]
    assert found.rows["move"].abs().to_list() == [1, 1, 0, 0, 0]
    few = drift(("v1", before.head(2)), ("v2", after), value="value")
    assert (few.shared, few.spearman) == (1, None)


def test_each_model_is_scored_on_the_other_s_test_rows_as_it_reads_them():
    rows = random_rows(60)
    first = version("v1", rows, held_out={f"r{at}" for at in range(0, 60, 5)})
    later = {**rows, **{f"s{at}": row for at, row in enumerate(random_rows(20, 1).values())}}
    second = version("v2", later, held_out={"r0", "r1", *(f"s{at}" for at in range(8))})
    scores = cross_scores([first, second])
    assert scores.select("model_of", "test_rows_of", "rows", "seen").rows() == [
        ("v1", "v1", 12, 0),
        ("v1", "v2", 9, 1),  # r1 was trained on by v1
        ("v2", "v1", 1, 11),
        ("v2", "v2", 10, 0),
    ]
    # By hand: the model of all rows of v1 on the rows of v2, encoded and scaled as v1's were.
    data = first.dataset
    test = second.dataset.test_rows.filter(~pl.col("row_id").is_in(data.row_ids))
    model, points = first.predictor.model, first.predictor.points
    ones = torch.ones(1, len(points.labels), dtype=torch.float64)
    exact = train_targets(model, points.features, points.labels, ones, classes=2).parameters[0]
    features = data.scaling(torch.from_numpy(data.encoding.encode(test)))
    margins = features @ exact[:-1] + exact[-1]
    signs = torch.tensor([1.0 if rich == "yes" else -1.0 for rich in test["rich"]])
    loss = torch.nn.functional.softplus(-signs * margins).mean()
    assert scores["exact_loss"][1] == pytest.approx(float(loss), rel=1e-4)
    assert scores["problem"].is_null().all()


def test_rows_that_cannot_be_read_are_a_problem_of_their_pair_alone():
    rows = random_rows(40)
    first = version("v1", rows, held_out={f"r{at}" for at in range(8)})
    renamed = table(rows, held_out={f"r{at}" for at in range(8)})
    renamed = Table(
        "mine", renamed.rows.rename({"town": "city"}), "rich", renamed.classes, 40, 1, "",
        held_out=renamed.held_out,
    )  # fmt: skip
    data = prepare_table(renamed, DatasetConfig())
    second = Version("v2", data, first.predictor)
    scores = cross_scores([first, second])
    assert "column 'town' is not there" in scores["problem"][1]
    assert scores["loss"].is_null().to_list() == [False, True, True, False]
