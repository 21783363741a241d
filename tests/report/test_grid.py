"""One table and one figure of several runs."""

import xml.etree.ElementTree as ET

import polars as pl
import pytest

from modelpred.report.canvas import COLOURS
from modelpred.report.grid import ADDED, REMOVED, GridCell, write_grid
from modelpred.report.methods import is_predictor

ERRORS = {
    "predictor": (0.02, 20.0),
    "predictor_refine_1": (0.001, 60.0),
    "newton_step": (0.1, 30.0),
    "retraining": (1e-9, 200.0),
}


def summary(error, time):
    return {
        "parameter_error": error, "parameter_error_low": error / 2,
        "parameter_error_high": 2 * error, "test_loss_error": error, "spearman_within_size": 0.9,
        "microseconds": time,
    }  # fmt: skip


def make_cell(source="spam", model="logistic", errors=ERRORS):
    rows = [
        {"method": method, "design": design, "subsets": 50, **summary(*pair)}
        for design in ("deletion", "uniform")
        for method, pair in errors.items()
    ]
    edits = {m: summary(*pair) for m, pair in errors.items() if m != "retraining"}
    edits["retraining"] = {"microseconds": 200.0, "subsets": 30, "not_converged": 0}
    lds = [
        {"method": method, "form": form, "lds": 0.9, "low": 0.88, "high": 0.92}
        for method in errors
        for form in ("direct", "additive")
    ]
    ways = [{"way": "retraining", "queries": 900}, {"way": "batched_retraining", "queries": None}]
    return GridCell(
        source=source,
        model=model,
        params={"subsets": {"fit": {"uniform": 4000}}},
        dataset={
            "points": 300, "scaling": {"name": "standardise", "offset": [0.0, 1.0]},
        },
        fidelity=pl.DataFrame(rows),
        edits={**edits, "addition": edits, "failed": {}, "failed_told": ""},
        break_even=pl.DataFrame(ways),
        lds=pl.DataFrame(lds),
    )  # fmt: skip


@pytest.fixture
def written(tmp_path):
    write_grid([make_cell(), make_cell(model="svm"), make_cell("iris")], tmp_path)
    return tmp_path


def test_every_method_is_a_row_with_its_error_time_and_place(written):
    table = pl.read_csv(written / "grid.csv")
    spam = table.filter(source="spam", model="svm", design="uniform")
    assert spam["method"].to_list() == list(ERRORS)
    assert spam["parameter_error"].to_list() == [error for error, _ in ERRORS.values()]
    assert spam["microseconds"].to_list() == [time for _, time in ERRORS.values()]
    # Only the Newton step is both slower and less accurate than another method.
    assert spam["frontier"].to_list() == [True, True, False, True]
    assert table["design"].unique(maintain_order=True).to_list() == [
        "uniform", "deletion", REMOVED, ADDED,
    ]  # fmt: skip
    assert table.filter(design=REMOVED, method="newton_step")["subsets"].unique().to_list() == [30]


def test_the_page_says_where_the_goal_is_missed(written):
    page = (written / "grid.md").read_text()
    assert "on the frontier of error against time in 12 of 12 designs" in page
    assert "at least 5 times as fast in 0 of 12" in page
    assert "| ModelPred | **2.00%** (1.00 to 4.00%)" in page
    assert "| One Newton step | 10.0% (5.00 to 20.0%)" in page
    assert "Exact retraining after 900 queries; Exact retraining, all at once never" in page
    assert "300 rows, 2 features (standardise); fitted to 4,000 uniform subsets" in page


def test_a_method_that_is_never_as_good_is_a_loss(tmp_path):
    worse = {**ERRORS, "predictor": (0.5, 20.0), "predictor_refine_1": (0.4, 60.0)}
    write_grid([make_cell(errors=worse)], tmp_path)
    page = (tmp_path / "grid.md").read_text()
    assert "slower or never as accurate in spam logistic, uniform" in page
    assert "| One Newton step (10.0%) | none |  |" in page


def test_each_table_has_a_self_contained_figure(written):
    for source, panels in (("spam", 6), ("iris", 3)):
        text = (written / f"frontier-{source}.svg").read_text()
        drawing = ET.fromstring(text)
        inside = drawing.findall("{http://www.w3.org/2000/svg}svg")
        # And the legend's swatches: one for the predictor's curve, one for each other method.
        others = [method for method in ERRORS if not is_predictor(method)]
        assert len(inside) == panels + 1 + len(others)
        assert "var(--" not in text
        assert f"{source}, logistic: random subsets of any size" in text
        assert COLOURS["predictor"][0] in text
        identities = [node.get("id") for node in drawing.iter() if node.get("id")]
        assert len(identities) == len(set(identities))


def test_the_same_results_give_the_same_files(written, tmp_path):
    other = tmp_path / "other"
    write_grid([make_cell(), make_cell(model="svm"), make_cell("iris")], other)
    for path in other.iterdir():
        assert path.read_bytes() == (written / path.name).read_bytes()
