"""Stage `predictor`: fits the predictor and measures its errors and those of the other methods."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import torch

from flows.artifacts import (
    DATASET,
    PARAMS,
    PREDICTOR,
    TARGETS,
    write_json,
    write_table,
    written,
)
from flows.revisions import advice_at, fetch
from flows.runtime import run_stage
from modelpred.dataset import Dataset, read_dataset
from modelpred.errors import InvalidInput
from modelpred.metrics import relative_errors
from modelpred.params import read_params
from modelpred.predictor import (
    Predictor,
    PredictorConfig,
    answer_curve,
    fidelity,
    fit_predictor,
    read_predictor,
    write_predictor,
)
from modelpred.predictor.consistency import require_widths
from modelpred.predictor.output_predictor import fit_outputs, write_outputs
from modelpred.progress import progress_bar
from modelpred.refits import EXACT, Retraining, retrainings, rivals
from modelpred.refits.files import RIVALS_FILE, write_rivals
from modelpred.sealed import check_inputs, remake
from modelpred.targets import TargetModel, dataset_points, dataset_test_points
from modelpred.targets.bank import Bank
from modelpred.targets.known_outputs import KnownOutputs
from modelpred.targets.shards import read_bank

if TYPE_CHECKING:
    from modelpred.params import Params


def main() -> None:
    """Fit the predictor, measure all methods on held-out subsets, and write both."""
    params = read_params(PARAMS)
    check_inputs(TARGETS, again=remake("targets"))
    dataset = read_dataset(DATASET)
    bank = read_bank(TARGETS)
    classes = len(dataset.classes)
    points = dataset_points(dataset)
    test_points = dataset_test_points(dataset)
    model = params.targets.build(classes=classes)
    require_widths(TARGETS, bank.weights, bank.parameters, model, points, again=remake("targets"))
    if not model.predictable:
        _fit_outputs(params, dataset, bank, model)
        return
    weights, parameters = bank.usable(role="fit")
    with progress_bar("predictor") as progress:
        fitted = fit_predictor(
            params.predictor,
            model,
            points,
            weights,
            parameters,
            validation=bank.usable(role="validation"),
            tolerance=params.targets.tolerance,
            row_ids=dataset.row_ids,
            start=None if params.predictor.start is None else predictor_of(params.predictor.start),
            progress=progress,
        )
    cheap = rivals(model, points, weights, parameters, tolerance=params.targets.tolerance)
    full = cheap["full_model"](torch.ones(1, len(points.labels)))[0]
    refits = {
        **answer_curve(fitted),
        **cheap,
        **retrainings(model, points, tolerance=params.targets.tolerance, start=full),
    }
    table = fidelity(
        refits, bank.select(role="test"), model=model, points=points, test_points=test_points
    )
    with written(PREDICTOR, made_from=(DATASET, TARGETS)) as folder:
        write_predictor(fitted, folder)
        trained = sum(role != "test" for role in bank.roles)
        write_rivals(cheap, folder / RIVALS_FILE, trained=trained)
        write_table(table, folder / "fidelity")
        write_table(pl.DataFrame(fitted.history), folder / "history")
        write_table(errors(table), folder / "errors")
        write_json(dict(errors(table).rows()), folder / "metrics.json")


def _fit_outputs(params: "Params", dataset: Dataset, bank: Bank, family: TargetModel) -> None:
    """Fit the predictor of outputs, of a target whose parameters are not predicted, and measure it."""
    if params.predictor != PredictorConfig():
        raise InvalidInput(
            f"the settings of predictor are those of a network of parameters, but outputs of {family.name} "
            "are predicted without one; remove the section from params.yaml"
        )
    tolerance = params.targets.tolerance
    points = dataset_points(dataset)
    test_points = dataset_test_points(dataset)
    model = KnownOutputs.of(family, points, test_points)
    weights, parameters = bank.usable(role="fit")
    outputs = model.of_parameters(parameters)
    full = Retraining(family, points, tolerance=tolerance)(torch.ones(1, len(points.labels)))[0]
    fitted = fit_outputs(model, points, weights, outputs, full=full, row_ids=dataset.row_ids)
    cheap = rivals(model, points, weights, outputs, tolerance=tolerance)
    refits = {fitted.name: fitted, **cheap, **retrainings(model, points, tolerance=tolerance)}
    held_out = bank.select(role="test")
    held_out = replace(held_out, parameters=model.of_parameters(held_out.parameters))
    table = fidelity(refits, held_out, model=model, points=points, test_points=test_points)
    watched, true = bank.usable(role="validation")
    error = relative_errors(fitted(watched), model.of_parameters(true)).mean()
    history = {"epoch": [0], "validation_error": [float(error)], "seconds": [fitted.seconds]}
    with written(PREDICTOR, made_from=(DATASET, TARGETS)) as folder:
        write_outputs(fitted, folder)
        write_rivals(cheap, folder / RIVALS_FILE, trained=len(weights))
        write_table(table, folder / "fidelity")
        write_table(pl.DataFrame(history), folder / "history")
        write_table(errors(table), folder / "errors")
        write_json(dict(errors(table).rows()), folder / "metrics.json")


def predictor_of(revision: str) -> Predictor:
    """The predictor of a revision, read through DVC."""
    with tempfile.TemporaryDirectory() as copy, advice_at(revision):
        return read_predictor(fetch(revision, (PREDICTOR,), into=Path(copy)) / PREDICTOR.name)


def errors(table: pl.DataFrame) -> pl.DataFrame:
    """Mean parameter error of each method but retraining on uniform subsets, the smallest first.

    If the params hold out no uniform subsets, the first design is used.
    """
    designs = table["design"].to_list()
    design = "uniform" if "uniform" in designs else designs[0]
    chosen = table.filter(pl.col("design") == design, ~pl.col("method").is_in(EXACT))
    return chosen.select("method", "parameter_error").sort("parameter_error")


if __name__ == "__main__":
    run_stage("predictor", main)
