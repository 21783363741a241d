"""Models of edited training rows: without some, with other weights or labels, with added rows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from modelpred.api.edited import EditedModel
from modelpred.api.edits import TrainingSet, edited_set, ids_with, model_of
from modelpred.api.frames import is_frame
from modelpred.api.inputs import (
    ArrayLike,
    RowNames,
    array_of,
    positions_of,
    read_weights,
)
from modelpred.api.methods.state import FitState
from modelpred.errors import InvalidInput
from modelpred.numbers import Number
from modelpred.progress import progress_bar

log = logging.getLogger(__name__)


class EditMethods(FitState):
    """Methods of ModelPred that return the model of an edited training set."""

    def without(self, rows: RowNames, *, engine: str = "auto", refine: Number = 0) -> EditedModel:
        """The model without these training rows.

        Args:
            rows: positions (whole numbers) or ids (texts).
            engine: exact retrains, predicted predicts, auto uses the faster way; the result's
                `engine` says which.
            refine: of a prediction, as `predict_parameters`.

        Raises:
            InvalidInput: none, unknown or repeated rows.
        """
        positions = positions_of(rows, self.row_ids)
        weights = torch.ones(len(self.row_ids), dtype=torch.float64)
        weights[positions] = 0
        pool = self._ready.problem.points
        title = f"Without {len(positions)} of {len(weights)} training rows:"
        edit = TrainingSet(title, weights, pool, self.row_ids)
        model = self._model_of(edit, engine=engine, refine=refine)
        for line in model.notes:
            log.warning("%s", line)
        return model

    def reweighted(
        self,
        weights: Mapping[Any, Number] | ArrayLike,
        *,
        engine: str = "auto",
        refine: Number = 0,
    ) -> EditedModel:
        """The model of training rows with other weights; `compare` works as for `without`.

        Args:
            weights: how often a row counts, by position or id (other rows count once), or a number
                for each row.
            engine: as `without`.
            refine: as `predict_parameters`.

        Raises:
            InvalidInput: unknown rows, or a weight below zero.
        """
        if isinstance(weights, Mapping):
            return self.edit(weights=weights, engine=engine, refine=refine)
        return self.model_for(weights, engine=engine, refine=refine)

    def with_points(
        self,
        X_new: ArrayLike,
        y_new: ArrayLike,
        *,
        ids: RowNames | None = None,
        engine: str = "auto",
        refine: Number = 0,
    ) -> EditedModel:
        """The model with new rows added to the training rows.

        Args:
            X_new: [rows, columns], unscaled, with the columns of the fit.
            y_new: their labels, of classes that the fit saw.
            ids: a name for each; by default new-0, new-1, ...
            engine: as `without`; auto retrains, which is faster than extending the predictor.
            refine: as `predict_parameters`.

        Raises:
            InvalidInput: other columns, an unknown class, or an id that another row has.
        """
        ready = self._ready
        old, new = ready.problem.points, ready.reading.points(X_new, y_new, what="_new")
        count = len(new.labels)
        row_ids = ids_with(self.row_ids, X_new, ids, rows=count)
        extended = old.joined(new)
        title = f"With {count} row{'s'[: count != 1]} added to {len(old.labels)} training rows:"
        weights = torch.ones(len(extended.labels), dtype=torch.float64)
        edit = TrainingSet(title, weights, extended, row_ids)
        return self._model_of(edit, engine=engine, refine=refine)

    def edit(
        self,
        *,
        weights: Mapping[Any, Number] | None = None,
        labels: Mapping[Any, Any] | None = None,
        added: tuple[ArrayLike, ArrayLike] | None = None,
        ids: RowNames | None = None,
        engine: str = "auto",
        refine: Number = 1,
        bounded: bool = True,
    ) -> EditedModel:
        """The model of an edited training set: `mp.edit(weights={3: 0, "a": 2}, labels={7: "spam"})`.

        Args:
            weights: how often a row counts, by position (a whole number) or id (a text); 0 removes
                it. Rows that are not named count once.
            labels: the new label of a row, by position or id.
            added: rows with their labels, unscaled, with the columns of the fit.
            ids: names of the added rows, which `weights` may use; by default new-0, new-1, ...
            engine: as `without`; with new labels or added rows auto retrains, which is faster than
                extending the predictor.
            refine: as `predict_parameters`.
            bounded: whether to compute the certificate of a predicted model.

        Raises:
            InvalidInput: unknown rows, classes or columns, or a weight below zero.
        """
        edit = edited_set(
            self._ready, weights=weights or {}, labels=labels or {}, added=added, ids=ids
        )
        return self._model_of(edit, engine=engine, refine=refine, bounded=bounded)

    def model_for(
        self, weights: ArrayLike, *, engine: str = "auto", refine: Number = 0
    ) -> EditedModel:
        """The model of a subset of the training rows.

        Args:
            weights: [points], how often each row counts.
            engine: as `without`.
            refine: as `predict_parameters`.

        Raises:
            InvalidInput: not one number for each row.
        """
        table = weights if is_frame(weights) else np.atleast_2d(array_of(weights))
        rows = read_weights(table, self.row_ids)
        if len(rows) != 1:
            raise InvalidInput(
                f"weights have {len(rows)} rows; model_for takes those of one subset"
            )
        held = int((rows[0] > 0).sum()) if rows.shape[1] == len(self.row_ids) else 0
        title = f"Of a subset with {held} of {len(self.row_ids)} training rows:"
        edit = TrainingSet(title, rows[0], self._ready.problem.points, self.row_ids)
        return self._model_of(edit, engine=engine, refine=refine)

    def _model_of(
        self, edit: TrainingSet, *, engine: str, refine: Number, bounded: bool = True
    ) -> EditedModel:
        """The model of a training set, and the record of the engine that gave it."""
        with progress_bar(shown=self._settings.progress) as report:
            model = model_of(
                self._ready, edit, engine=engine, refine=refine, bounded=bounded, progress=report
            )
        self._engine_used = model.engine
        return model
