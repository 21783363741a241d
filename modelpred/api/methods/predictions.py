"""Uncertainty of predictions, memorized rows, and the rows that matter for predictions and parameters."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import torch

from modelpred.api.attribution import Attribution, Explanation, attributed, explained
from modelpred.api.edited import EditedModel
from modelpred.api.edits import fit_of
from modelpred.api.inputs import (
    ArrayLike,
    one_row,
)
from modelpred.api.methods.state import FitState
from modelpred.api.uncertainty import (
    MODEL,
    TRUTH,
    MemorizedRows,
    PredictiveDistribution,
    memorized_rows,
    predictive_distribution,
)
from modelpred.numbers import MOST_DRAWS, Number, whole_number

log = logging.getLogger(__name__)
EXPLAINING = 4
"""Models that explaining a prediction needs, about, as a multiple of the rows."""


class PredictionMethods(FitState):
    """Methods of ModelPred about the uncertainty of predictions and the rows that matter for them."""

    def predictive(
        self,
        X: ArrayLike,
        *,
        about: str = MODEL,
        resamples: Number = 1000,
        refine: Number = 0.5,
        engine: str = "auto",
        seed: Number = 0,
    ) -> PredictiveDistribution:
        """Mean, spread and 90% interval of predictions and parameters over many models.

        By default, the models are those of bootstrap resamples, so the intervals show how much the
        model depends on its training rows. They do not contain the bias of a strong penalty, which
        is the same in all resamples. `about="truth"` gives intervals for the true probabilities.
        `blocks()` yields the predictions of single models.

        Args:
            X: rows to predict, unscaled, with the columns of the fit.
            about: `model`: models of bootstrap resamples; `truth`, for logistic and softmax: Laplace
                draws of parameters, averaged over penalties.
            resamples: number of bootstrap resamples, or of draws for `truth`.
            refine: as `predict_parameters`.
            engine: exact retrains the models, predicted predicts them, auto uses the faster way;
                `engine_used` says which.
            seed: of the resamples.

        Raises:
            InvalidInput: other columns, no resample, or a family without probabilities (svm).
        """
        ready = self._ready
        features = ready.reading.features(X, what="X")
        models = whole_number(resamples, "resamples", least=1, most=MOST_DRAWS)
        rows = self._unlabelled(features)
        engine = "exact" if about == TRUTH else engine
        with self._context(rows, engine, models=models, refine=refine, own=False) as (
            context,
            choice,
        ):
            if not choice.exact:
                self._warn_of_no_bootstrap()
            return predictive_distribution(
                context,
                features,
                ready.reading.labels,
                resamples=resamples,
                seed=seed,
                engine=choice,
                about=about,
            )

    def _warn_of_no_bootstrap(self) -> None:
        subsets = self._prepared().targets.subsets
        if ("fit", "bootstrap") not in zip(subsets.roles, subsets.designs, strict=True):
            log.warning(
                "the fit saw no bootstrap resample; check the intervals with engine='exact'"
            )

    def memorization(
        self,
        test: tuple[ArrayLike, ArrayLike] | None = None,
        *,
        subsets: Number = 1000,
        share: Number = 0.7,
        strongest: Number = 100,
        refine: Number = 0,
        engine: str = "auto",
        seed: Number = 0,
        with_cells: bool = False,
    ) -> MemorizedRows:
        """The memorization of each training row, and its influence on test rows.

        Args:
            test: rows with labels; by default the test rows of the fit, or else the training rows.
            subsets: number of random subsets; more is more precise.
            share: size of each subset, as a share of the training rows.
            strongest: number of influences on test rows to list.
            refine: as `predict_parameters`.
            engine: exact retrains the models, predicted predicts them, auto uses the faster way;
                `engine_used` says which.
            seed: of the subsets.
            with_cells: whether to add the original cells of the rows.

        Raises:
            InvalidInput: tables or settings that cannot be used.
        """
        ready = self._ready
        points = ready.scored_points if test is None else ready.reading.points(*test, what="_test")
        models = whole_number(subsets, "subsets", least=1, most=MOST_DRAWS)
        with self._context(points, engine, models=models, refine=refine) as (context, choice):
            found = memorized_rows(
                context,
                ready.reading.labels,
                settings={"subsets": subsets, "share": share, "strongest": strongest, "seed": seed},
                engine=choice,
            )
        return replace(found, rows=self._with_cells(found.rows, with_cells))

    def attribute(
        self,
        parameter: Number | str | tuple[Any, str],
        *,
        refine: Number = 3,
        engine: str = "auto",
    ) -> Attribution:
        """The training rows that change a parameter most.

        Args:
            parameter: its position, or the name of its column (or `intercept`); for several
                classes (class, column).
            refine: as `predict_parameters`, for the model without each row; a single row changes
                little, so use at least one step.
            engine: exact retrains the models, predicted predicts them, auto uses the faster way;
                `engine_used` says which.

        Raises:
            InvalidInput: a parameter that the model does not have.
        """
        ready = self._ready
        self._require_parameters("attribute")
        models = len(self.row_ids) + 1
        with self._context(ready.scored_points, engine, models=models, refine=refine) as (
            context,
            choice,
        ):
            return attributed(
                context,
                ready.reading.labels,
                parameter=parameter,
                full=ready.problem.full_parameters,
                engine=choice,
            )

    def explain(
        self,
        x: ArrayLike,
        *,
        largest: Number = 0.5,
        refine: Number = 1,
        engine: str = "auto",
        model: EditedModel | None = None,
    ) -> Explanation:
        """The training rows that matter most for a prediction, and a small set whose removal flips it.

        The removal of the set is predicted jointly, not as a sum over rows, and then checked by
        retraining once.

        Args:
            x: one row, unscaled, with the columns of the fit.
            largest: share of the training rows that may be removed to flip the prediction.
            refine: as `predict_parameters`; margins near a flip are small, so use at least one step.
            engine: exact retrains the models, predicted predicts them, auto uses the faster way;
                `engine_used` says which.
            model: the model of an edit, explained by the rows of its training set; default: the model
                of all rows.

        Raises:
            InvalidInput: other columns, not one row, or a model whose rows lack a class.
        """
        ready = self._ready if model is None else fit_of(self._ready, model)
        row = one_row(x)
        models = EXPLAINING * len(ready.problem.row_ids)
        features = ready.reading.features(row, what="x")
        rows = self._unlabelled(features)
        with self._context(rows, engine, models=models, refine=refine, own=False, fitted=ready) as (
            context,
            choice,
        ):
            full = ready.problem.full_parameters
            if context.model is not ready.problem.model:
                full = context.truth(torch.ones(1, context.pool))[0]
            return explained(
                context,
                ready.reading.labels,
                features,
                full=full,
                largest=largest,
                engine=choice,
            )
