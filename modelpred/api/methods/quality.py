"""Accuracy of predicted models: parameters of subsets, certificates, errors beside other methods."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from modelpred.api.inputs import (
    ArrayLike,
    read_weights,
)
from modelpred.api.methods.state import FitState
from modelpred.api.printing import WideTable
from modelpred.api.report import NO_TEST, report_of, study_configs
from modelpred.errors import InvalidInput
from modelpred.numbers import Number, whole_number
from modelpred.predictor import Predictor, answer_curve, with_break_even
from modelpred.predictor import fidelity as fidelity_table
from modelpred.predictor.recipe_fidelity import FidelityPlan, recipe_fidelity
from modelpred.progress import progress_bar
from modelpred.refits import Refit, retrainings, rivals
from modelpred.targets import TorchTarget
from modelpred.targets.bank import Bank

log = logging.getLogger(__name__)
LEARNING = {
    "network": pl.String,
    "targets": pl.Int64,
    "error": pl.Float64,
    "seconds": pl.Float64,
}


class QualityMethods(FitState):
    """Methods of ModelPred about the predictor: the models it was fitted to, and its errors."""

    _fidelity: pl.DataFrame | None = None
    _other_methods: dict[str, Refit] | None = None

    @property
    def predictor(self) -> Predictor:
        """The fitted predictor: a function from weights to parameters, on tensors.

        The first use trains the models of `trained_subsets` and fits the predictor.
        """
        return self._prepared().predictor

    @property
    def trained_subsets(self) -> Bank:
        """The subsets whose models were trained, with their parameters."""
        return self._prepared(test_subsets=True).targets.bank

    @property
    def bank(self) -> Bank:
        """Deprecated: `trained_subsets`."""
        warnings.warn(
            "bank is deprecated and goes in the next minor version; use trained_subsets",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.trained_subsets

    @property
    def learning(self) -> pl.DataFrame:
        """The fits that led to the predictor; the log says why training stopped.

        Columns network, targets (trained subsets of the fit), error (mean relative error of the
        parameters on validation subsets), seconds (of training and fitting so far). Empty after
        `load`.
        """
        rounds = self._prepared().rounds
        return pl.DataFrame([vars(each) for each in rounds], schema=LEARNING)

    @property
    def outcomes(self) -> pl.DataFrame:
        """Number of subsets by role and design, and how many have no usable model.

        Columns role, design, subsets, redrawn (they lacked a class and were drawn again), degenerate
        (a class is still missing, so that there is no optimum) and not_converged.
        """
        return self._prepared(test_subsets=True).targets.outcomes

    def predict_parameters(
        self,
        weights: ArrayLike,
        refine: Number = 0,
        *,
        stages: Number | None = None,
        accuracy: float | None = None,
    ) -> NDArray[np.float64]:
        """Predicted parameters [subsets, parameters] of the models of subsets.

        For each output (one, or one for each class), the coefficients of the scaled features come
        first, then the intercept.

        Args:
            weights: [subsets, points], how often each row counts in each subset.
            refine: Newton steps from the prediction towards retraining; 0.5 is half of a step.
            stages: number of the network's stages to run, for a faster and less accurate
                prediction; `predictor.stages`, the default, is all of them.
            accuracy: in place of `stages`, the estimated relative error at which a subset takes no
                further stage.
        """
        rows = read_weights(weights, self.row_ids)
        return self.predictor.predict(rows, refine=refine, stages=stages, accuracy=accuracy).numpy()

    def retrain(self, weights: ArrayLike) -> NDArray[np.float64]:
        """Parameters [subsets, parameters] by exact training; nan for a model that did not converge."""
        self._require_parameters("retrain")
        rows = read_weights(weights, self.row_ids)
        trained = self._ready.problem.truth.train(rows)
        if not bool(trained.converged.all()):
            failed = int((~trained.converged).sum())
            log.warning("%d of %d models did not converge; their rows are nan", failed, len(rows))
        parameters = trained.parameters.to(torch.float64)
        return torch.where(trained.converged[:, None], parameters, torch.nan).numpy()

    def certificate(
        self,
        weights: ArrayLike,
        refine: Number = 0,
        *,
        of: str = "parameters",
        X: ArrayLike | None = None,
    ) -> NDArray[np.float64] | None:
        """Upper bound [subsets] on the distance of `predict_parameters` to the optimum.

        It is computed without retraining and takes about as long as a Newton step. None for mlp,
        which stops before its optimum; infinity for a subset without an optimum.

        Args:
            weights: [subsets, rows].
            refine: as `predict_parameters`.
            of: `parameters`, or `margins` for a bound [subsets, rows of X] on how far any margin (for
                numbers, the prediction) of each row is from that of the retrained model.
            X: rows for `margins`, unscaled, with the columns of the fit.
        """
        rows = None if X is None else self._ready.reading.features(X, what="X")
        bound = self.predictor.certificate(
            read_weights(weights, self.row_ids), refine=refine, of=of, rows=rows
        )
        return None if bound is None else bound.numpy()

    def fidelity(
        self,
        *,
        seeds: Number = 2,
        subsets: Number = 100,
        held_out: Number = 50,
        followed: Number = 0,
    ) -> pl.DataFrame:
        """Errors of the predictor and of other methods on held-out subsets; a row per method and design.

        The columns are those of `modelpred.predictor.fidelity`. If the fit had no test rows, losses
        are compared on all training rows, and their column is called `pool_loss_error`. The column
        `break_even` is the number of queries after which preparing the predictor and predicting take
        less time than exact retraining; null if they never do.

        For a TorchTarget, the table has the agreement of runs with different seeds, the ceiling that
        this sets, the smoothness, and the LDS of methods that predict scores, with the columns of
        `modelpred.predictor.recipe_fidelity`. The arguments apply only to a TorchTarget: each
        reference is the mean of `seeds` runs, and methods are fitted to `subsets` random halves and
        tested on `held_out` others. With `followed`, the predictor also uses derivatives through the
        trainings of so many halves (`training_effects`); each takes about as long as one more
        training for each test row.
        """
        if isinstance(model := self._ready.problem.model, TorchTarget):
            plan = FidelityPlan(
                seeds=whole_number(seeds, "seeds"),
                fit=whole_number(subsets, "subsets"),
                held_out=whole_number(held_out, "held_out"),
                followed=whole_number(followed, "followed", least=0),
                seed=self._settings.seed,
            )
            ready = self._ready
            with progress_bar(shown=self._settings.progress) as report:
                return WideTable(
                    recipe_fidelity(
                        model, ready.problem.points, ready.scored_points, plan, progress=report
                    )
                )
        if self._fidelity is None:
            ready, predictor, trained = self._ready, self.predictor, self.trained_subsets
            model, points, tolerance = predictor.model, predictor.points, ready.problem.tolerance
            start = ready.problem.full_parameters
            refits = {
                **answer_curve(predictor),
                **self._rivals(),
                **retrainings(model, points, tolerance=tolerance, start=start),
            }
            test = ready.test_points
            table = fidelity_table(
                refits,
                trained.select(role="test"),
                model=model,
                points=points,
                test_points=test or points,
            )
            names = {} if test else {"test_loss_error": "pool_loss_error"}
            seconds = ready.engine.preparation_seconds
            table = with_break_even(table.rename(names), preparation=seconds)
            self._fidelity = WideTable(table)
        return self._fidelity

    def _rivals(self) -> dict[str, Refit]:
        """The other methods, fitted to the same targets at the first call."""
        if self._other_methods is None:
            problem, targets = self._ready.problem, self.trained_subsets.usable(role="fit")
            self._other_methods = rivals(
                problem.model, problem.points, *targets, tolerance=problem.tolerance
            )
        return self._other_methods

    def report(
        self, folder: str | Path, *, rows: Number = 10, **studies: Mapping[str, Any]
    ) -> Path:
        """Run all studies and write the pipeline's report, one HTML file that works offline.

        Args:
            folder: to write index.html to.
            rows: how many of the most and of the least valuable rows are listed.
            studies: settings that differ from a study's defaults, such as
                `valuation={"permutations": 20}`; sections and keys are those of params.yaml.

        Returns:
            The path of index.html.

        Raises:
            InvalidInput: an unknown study or setting, or a fit without test rows.
        """
        configs = study_configs(studies)
        listed = whole_number(rows, "rows", least=1, most=100)
        ready = self._ready
        test = ready.test_points
        if test is None:
            raise InvalidInput(NO_TEST)
        with progress_bar(shown=self._settings.progress) as progress:
            ready.engine.prepared(progress=progress)
            return report_of(
                ready,
                Path(folder),
                test_points=test,
                configs=configs,
                fidelity=self.fidelity(),
                others=self._rivals(),
                rows=listed,
                progress=progress,
            )
