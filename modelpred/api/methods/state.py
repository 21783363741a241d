"""The state of a ModelPred, and what its methods share: contexts of studies, rows as points."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import polars as pl
import torch
from torch import Tensor

from modelpred.api.cells import beside, original_cells
from modelpred.api.contexts import context_of
from modelpred.api.evaluation import NO_ROWS
from modelpred.api.files import Fitted
from modelpred.api.forgetting import Given
from modelpred.api.inputs import ArrayLike
from modelpred.api.settings import FitSettings
from modelpred.engine import EngineChoice, Prepared
from modelpred.errors import InvalidInput
from modelpred.numbers import Number
from modelpred.progress import progress_bar
from modelpred.studies.context import StudyContext
from modelpred.targets import Points, TargetModel


class FitState:
    """What a ModelPred holds between calls; its methods are in the classes that build on this one.

    Attributes are private to ModelPred: what its users read are the properties here.
    """

    _settings: FitSettings
    _fitted: Fitted | None = None
    _given: Given | None = None
    _engine_used: EngineChoice | None = None

    @property
    def _ready(self) -> Fitted:
        if self._fitted is None:
            raise InvalidInput("this ModelPred is not fitted; call fit(X, y) first")
        return self._fitted

    @property
    def fitted(self) -> Fitted:
        """All that the fit made; its parts may change between versions."""
        return self._ready

    @property
    def row_ids(self) -> tuple[str, ...]:
        """The id of each row, in the order of the columns of weights."""
        return self._ready.problem.row_ids

    @property
    def model(self) -> TargetModel:
        """The family with its settings."""
        return self._ready.problem.model

    @property
    def engine_used(self) -> EngineChoice | None:
        """How the models of the latest call were found, and what the other way would have cost.

        None before a call that trains or predicts models. `print` shows it in words.
        """
        return self._engine_used

    def _prepared(self, *, test_subsets: bool = False) -> Prepared:
        """The trained subsets and the predictor, made at the first call; also the test subsets."""
        engine = self._ready.engine
        with progress_bar(shown=self._settings.progress and not engine.is_prepared) as report:
            if test_subsets:
                return engine.with_test_subsets(progress=report)
            return engine.prepared(progress=report)

    @contextmanager
    def _context(
        self,
        test_points: Points,
        engine: str,
        *,
        models: int,
        refine: Number,
        checked: int = 0,
        own: bool = True,
        others: Points | None = None,
        fitted: Fitted | None = None,
    ) -> Generator[tuple[StudyContext, EngineChoice]]:
        """The input of a study that needs so many models, and the engine that gives them.

        With `own`, models also score the training rows and `others`.
        """
        fitted = fitted or self._ready
        asked = (test_points, fitted.problem.points if own else None, others)
        scored = [points for points in asked if points is not None]
        with progress_bar(shown=self._settings.progress) as report:
            choice = fitted.engine.choose(
                engine, models=models, checked=checked, refine=refine, progress=report
            )
            self._engine_used = choice
            with context_of(
                fitted, test_points, choice=choice, scored=scored, progress=report
            ) as context:
                yield context, choice

    def _with_cells(self, table: pl.DataFrame, wanted: bool) -> pl.DataFrame:  # noqa: FBT001 - private
        """The table, if wanted with the original cells of its rows at the right."""
        if not wanted:
            return table
        return beside(table, original_cells(self._ready, self._given), self.row_ids)

    def _labelled(
        self, X: ArrayLike | None, y: ArrayLike | None, *, what: str, fallback: Points | None
    ) -> Points:
        """Rows with labels, called X and y with an ending, or the fallback where none are given."""
        if X is not None and y is not None:
            return self._ready.reading.points(X, y, what=what)
        if X is not None or y is not None:
            raise InvalidInput(f"pass both X{what} and y{what}, or neither")
        if fallback is None:
            raise InvalidInput(NO_ROWS)
        return fallback

    def _unlabelled(self, features: Tensor) -> Points:
        """Rows without labels as points."""
        labels = torch.zeros(len(features), dtype=self._ready.problem.points.labels.dtype)
        return Points(features, labels, self._ready.problem.points.classes)

    def _require_parameters(self, what: str) -> None:
        """InvalidInput where models are only known by their outputs."""
        model = self._ready.problem.model
        if not model.has_parameters:
            raise InvalidInput(
                f"{what} needs parameters, and those of {model.title} are not known; use values, "
                "or model_for(weights).to_sklearn()"
            )
