"""LDS: a perfect prediction scores one, additive forms are sums, one bank scores all."""

import numpy as np
import polars as pl
import pytest
import scipy.stats
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from modelpred.cli import app
from modelpred.errors import InvalidInput
from modelpred.studies import lds
from modelpred.studies.attribution_files import oriented
from modelpred.studies.lds import LdsConfig, MarginBank, leave_one_out_effects, retrained_bank
from modelpred.studies.results import StudyResult, write_result
from tests.studies.conftest import make_context

SMALL = LdsConfig(subsets=20)


def score(result, method, form):
    chosen = (pl.col("method") == method) & (pl.col("form") == form)
    return result.tables["lds"].row(by_predicate=chosen, named=True)


def test_subsets_hold_half_of_the_points(logistic):
    bank = retrained_bank(SMALL, logistic)
    assert bank.weights.sum(dim=1).tolist() == [15] * 20
    assert bank.margins.shape == (20, 60)
    again = retrained_bank(SMALL, logistic)
    assert torch.equal(bank.margins, again.margins)


def test_retraining_itself_scores_one(exact):
    found = score(lds.run(SMALL, exact), "predictor", "direct")
    # Retraining in other blocks moves margins by its tolerance, and hardly ever a rank.
    assert found["lds"] == pytest.approx(1, abs=1e-3)
    assert (found["test_rows"], found["subsets"]) == (60, 20)


def test_every_score_is_a_plain_mean_of_rank_correlations(context):
    bank = retrained_bank(SMALL, context)
    result = lds.run(SMALL, context, bank=bank)
    model, test = context.model, context.test_points
    for name, refit in context.refits.items():
        if name == "full_model":
            continue
        margins = model.margins(model.scores(refit(bank.weights), test.features), test.labels)
        each = [
            scipy.stats.spearmanr(margins[:, row], bank.margins[:, row]).statistic
            for row in range(margins.shape[1])
        ]
        found = score(result, name, "direct")
        assert found["lds"] == pytest.approx(np.mean(each), abs=1e-9)
        assert found["low"] <= found["lds"] <= found["high"]
    assert score(result, "full_model", "direct")["lds"] == 0


def test_effects_are_leave_one_out_differences_and_their_sums_are_scored(ridge):
    truth = ridge.truth
    effects = leave_one_out_effects(truth, ridge)
    weights = torch.ones(2, ridge.pool)
    weights[1, 7] = 0
    both = lds.margins_of(truth(weights), ridge)
    # Exact training ends within 1e-9 of the optimum.
    torch.testing.assert_close(effects[:, 7], both[0] - both[1], rtol=1e-6, atol=1e-7)
    bank = retrained_bank(SMALL, ridge)
    result = lds.run(SMALL, ridge, bank=bank, attributions={"outside": effects.numpy()})
    by_hand = lds.lds(
        torch.stack([effects[:, row.bool()].sum(1) for row in bank.weights]), bank.margins
    )
    assert score(result, "outside", "additive")["lds"] == pytest.approx(by_hand.mean, abs=1e-9)
    noise = {"noise": np.random.default_rng(0).normal(size=effects.shape)}
    other = lds.run(SMALL, ridge, bank=bank, attributions=noise)
    assert score(result, "outside", "additive")["lds"] > score(other, "noise", "additive")["lds"]


def test_a_truth_that_is_a_sum_is_met_by_its_own_attribution(logistic):
    bank = retrained_bank(SMALL, logistic)
    matrix = torch.randn(60, logistic.pool, generator=torch.Generator().manual_seed(0)).double()
    linear = MarginBank(bank.weights, bank.weights.double() @ matrix.T, bank.converged)
    result = lds.run(SMALL, logistic, bank=linear, attributions={"own": matrix})
    assert score(result, "own", "additive")["lds"] == pytest.approx(1)


def test_subsets_that_did_not_converge_are_counted_and_left_out(logistic):
    bank = retrained_bank(SMALL, logistic)
    converged = bank.converged.clone()
    converged[:5] = False
    margins = bank.margins.clone()
    margins[:5] = torch.nan
    result = lds.run(SMALL, logistic, bank=MarginBank(bank.weights, margins, converged))
    assert result.metrics["not_converged"] == 5
    assert result.tables["lds"]["subsets"].unique().to_list() == [15]
    assert result.tables["lds"]["lds"].is_finite().all()


def test_a_written_bank_scores_the_same(logistic, tmp_path):
    bank = retrained_bank(SMALL, logistic)
    write_result(StudyResult({}, {"bank": lds.margin_table(bank)}), tmp_path)
    again = lds.read_margins(tmp_path / "bank.parquet")
    assert torch.equal(again.margins, bank.margins)
    first, second = (lds.run(SMALL, logistic, bank=side) for side in (bank, again))
    assert first.tables["lds"].equals(second.tables["lds"])
    write_result(StudyResult({}, {"bank": pl.DataFrame({"weights": [1]})}), tmp_path)
    with pytest.raises(InvalidInput, match="is no bank of margins"):
        lds.read_margins(tmp_path / "bank.parquet")
    with pytest.raises(InvalidInput, match="is missing"):
        lds.read_margins(tmp_path / "none.parquet")


def test_other_rows_are_refused(logistic):
    bank = retrained_bank(SMALL, logistic)
    with pytest.raises(
        InvalidInput, match=r"expected \[test rows, points\] = \[60, 30\]; transpose"
    ):
        lds.run(SMALL, logistic, bank=bank, attributions={"trak": torch.zeros(30, 60)})
    with pytest.raises(InvalidInput, match="not finite"):
        lds.run(SMALL, logistic, bank=bank, attributions={"trak": torch.full((60, 30), torch.nan)})
    with pytest.raises(InvalidInput, match="has the name of a method"):
        lds.run(SMALL, logistic, bank=bank, attributions={"influence": torch.zeros(60, 30)})
    short = MarginBank(bank.weights[:, :9], bank.margins, bank.converged)
    with pytest.raises(InvalidInput, match="retrained for another data set"):
        lds.run(SMALL, make_context("logistic", refits={}), bank=short)


@pytest.fixture
def project(logistic, tmp_path):
    """A folder in which the study was run, and its leave-one-out effects of retraining."""
    folder = tmp_path / "artifacts" / "studies" / "lds"
    write_result(lds.run(SMALL, logistic), folder)
    effects = leave_one_out_effects(logistic.truth, logistic).numpy()
    return tmp_path, effects


def test_the_study_writes_the_bank_and_the_order_of_its_rows(logistic, project):
    folder = project[0] / "artifacts" / "studies" / "lds"
    assert torch.equal(
        lds.read_margins(folder / "bank.parquet").weights, retrained_bank(SMALL, logistic).weights
    )
    assert not (folder / "bank.csv").exists()
    order = pl.read_csv(folder / "order.csv", schema_overrides={"row_id": pl.String})
    pool = order.filter(split="pool")
    assert tuple(pool["row_id"]) == logistic.row_ids
    assert pool["position"].to_list() == list(range(logistic.pool))


def test_the_command_scores_a_matrix_from_any_of_three_kinds_of_file(project):
    place, effects = project
    table = pl.DataFrame(effects, schema=[f"row {column}" for column in range(effects.shape[1])])
    np.save(place / "trak.npy", effects)
    table.write_csv(place / "captum.csv")
    table.write_parquet(place / "dattri.parquet")
    files = [str(place / name) for name in ("trak.npy", "captum.csv", "dattri.parquet")]
    said = CliRunner().invoke(app, ["lds", *files, "--project", str(place)])
    assert said.exit_code == 0, said.output
    lines = {line.split()[0]: line.split()[2:] for line in said.output.splitlines()[1:4]}
    assert set(lines) == {"trak", "captum", "dattri"}
    assert len(set(map(tuple, lines.values()))) == 1
    expected = lds.score_attribution(
        lds.read_margins(place / "artifacts" / "studies" / "lds" / "bank.parquet"), effects
    )
    assert lines["trak"][0] == f"{expected['lds']:.3f}"
    assert "newton step" in said.output


def test_files_without_a_matrix_are_refused_in_one_line(project):
    place, effects = project
    np.save(place / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(place / "short.npy", effects[:, 1:])
    torch.save(torch.nn.Linear(2, 2), place / "model.pt")  # an object, which loading would build
    torch.save({"a": torch.ones(2), "b": torch.ones(2)}, place / "two.pt")
    (place / "cut.pt").write_bytes((place / "two.pt").read_bytes()[:200])
    (place / "cut.safetensors").write_bytes(b"12345678{")
    (place / "words.csv").write_text("a,b\nx,y\n")
    (place / "notes.txt").write_text("1")
    for name, message in {
        "objects.npy": "it holds object, which is no number",
        "short.npy": "expected [",
        "model.pt": "holds no matrix of numbers",
        "two.pt": "expected one matrix, got 2 entries",
        "cut.pt": "holds no matrix of numbers",
        "cut.safetensors": "holds no matrix of numbers",
        "words.csv": "holds no matrix of numbers",
        "notes.txt": "expected a file that ends in .npy, .csv, .parquet, .pt, .safetensors",
        "none.npy": "is missing",
    }.items():
        said = CliRunner().invoke(app, ["lds", str(place / name), "--project", str(place)])
        assert said.exit_code == 1
        assert message in said.output
        assert len(said.output.splitlines()) == 1
    elsewhere = CliRunner().invoke(app, ["lds", str(place / "short.npy"), "--project", "none"])
    assert "run the studies@lds stage again" in elsewhere.output


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("kind", ["npy", "pt", "named.pt", "safetensors"])
def test_both_orders_of_all_kinds_of_file_score_the_same(project, kind, turned):
    place, effects = project
    matrix = torch.from_numpy(effects.T.copy() if turned else effects)
    path = place / f"matrix.{kind}"
    if kind == "npy":
        np.save(path, matrix.numpy())
    elif kind == "safetensors":
        save_file({"attributions": matrix.contiguous()}, path)
    else:
        torch.save(matrix if kind == "pt" else {"attributions": matrix}, path)
    said = CliRunner().invoke(app, ["lds", str(path), "--project", str(place)])
    assert said.exit_code == 0, said.output
    bank = lds.read_margins(place / "artifacts" / "studies" / "lds" / "bank.parquet")
    expected = lds.score_attribution(bank, effects)["lds"]
    assert f"{expected:.3f}" in said.output.splitlines()[1]
    assert "other way round" not in said.output
    told = "train-test" if turned else "test-train"
    again = CliRunner().invoke(app, ["lds", str(path), "--project", str(place), "--order", told])
    assert again.output == said.output
    wrong = "test-train" if turned else "train-test"
    refused = CliRunner().invoke(app, ["lds", str(path), "--project", str(place), "--order", wrong])
    assert refused.exit_code == 1
    assert "expected [" in refused.output


def test_a_sign_that_is_the_other_way_round_is_said(project):
    place, effects = project
    np.save(place / "loss.npy", -effects)
    said = CliRunner().invoke(app, ["lds", str(place / "loss.npy"), "--project", str(place)])
    assert "loss: the sign is the other way round; with -1 times the matrix" in said.output


def test_a_square_matrix_needs_its_order():
    square = np.arange(4.0).reshape(2, 2)
    options = {"tests": 2, "points": 2, "name": "a"}
    with pytest.raises(InvalidInput, match=r"square.*--order"):
        oriented(square, order=None, **options)
    assert torch.equal(oriented(square, order="train-test", **options), torch.tensor(square.T))
    assert torch.equal(oriented(square, order="test-train", **options), torch.tensor(square))
