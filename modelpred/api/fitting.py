"""Fits a ModelPred: reads and scales the rows, builds the family, and trains the model of all rows."""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from modelpred.api.files import Fitted
from modelpred.api.forgetting import Given, Remaining
from modelpred.api.frames import usable_columns
from modelpred.api.inputs import ArrayLike, frame_of, unique_ids
from modelpred.api.labels import Labels, learn_labels
from modelpred.api.reading import Reading, dataset_of, encoded_cells, encoding_of, levels_of
from modelpred.api.settings import AUTO, FitSettings, family_of, targets_config
from modelpred.dataset import Dataset
from modelpred.dataset.scaling import Scaling, fit_scaling, require_apart
from modelpred.engine import Engine, Plan, problem_of
from modelpred.errors import InvalidInput
from modelpred.estimators import (
    Adapted,
    AdaptedModule,
    AdaptedTarget,
    Boxed,
    TorchHead,
    adapted,
    adapted_module,
    adapted_target,
    weight_column,
)
from modelpred.targets import Points, TargetModel, TargetsConfig, TorchTarget, points_of
from modelpred.targets.families import FAMILIES
from modelpred.targets.regularisation import choose_c


def fit_table(settings: FitSettings, given: Given) -> Fitted:
    """Fit a family by name to a table of numbers, or to a frame whose columns are encoded.

    Raises:
        InvalidInput: tables or labels that cannot be used.
    """
    rows, named = frame_of(given.table, what="X")
    if named:
        rows = usable_columns(rows, what="X")
    target = settings.target
    known = isinstance(target, str) and target != AUTO
    regression = FAMILIES[target].regression if known else None
    return _fit(
        settings,
        rows,
        given.labels,
        unique_ids(range(len(rows)) if given.ids is None else given.ids, rows=len(rows)),
        named=named,
        labels=learn_labels(given.labels, what="y", regression=regression),
        sample_weight=weight_column(given.sample_weight, rows=len(rows)),
        test=given.test,
    )


def fit_estimator(settings: FitSettings, given: Given) -> Fitted:
    """Fit an estimator to the rows as its preprocessing gives them.

    Raises:
        InvalidInput: tables or labels that cannot be used.
    """
    target: Any = settings.target
    adapt = {TorchHead: adapted_module, TorchTarget: adapted_target}.get(type(target), adapted)
    found, features = adapt(
        target,
        given.table,
        given.labels,
        sample_weight=given.sample_weight,
        seed=settings.seed,
        what="X",
    )
    rows = pl.DataFrame(features, schema=list(found.feature_names))
    ids = range(len(rows)) if given.ids is None else given.ids
    return _fit(
        settings,
        rows,
        given.labels,
        unique_ids(ids, rows=len(rows)),
        named=False,
        labels=learn_labels(given.labels, what="y", regression=found.target.regression),
        test=given.test,
        test_ids=given.test_ids,
        sample_weight=found.target.sample_weight,
        adapted=found,
    )


def fit_remaining(settings: FitSettings, fitted: Fitted, left: Remaining) -> Fitted:
    """Fit the family of an earlier fit by name to the rows that remain of it."""
    factors = fitted.problem.points.sample_weight
    training, test = left.training, left.test
    return _fit(
        settings,
        training.rows,
        training.labels,
        training.ids,
        named=fitted.reading.named,
        labels=left.labels,
        test=None if test is None else (test.rows, test.labels),
        test_ids=None if test is None else test.ids,
        sample_weight=None if factors is None else factors[list(training.places)].numpy(),
    )


def _fit(
    settings: FitSettings,
    rows: pl.DataFrame,
    y: ArrayLike,
    row_ids: tuple[str, ...],
    *,
    named: bool,
    labels: Labels,
    test: tuple[ArrayLike, ArrayLike] | None,
    test_ids: tuple[str, ...] | None = None,
    sample_weight: NDArray[np.float64] | None = None,
    adapted: Adapted | AdaptedModule | AdaptedTarget | None = None,
) -> Fitted:
    encoding = encoding_of(rows, what="X")
    cells = encoded_cells(encoding, rows, what="X")
    if adapted is None:
        scaling = fit_scaling(settings.scaling, cells)
    else:
        columns = len(rows.columns)
        scaling = Scaling("none", (0.0,) * columns, (adapted.target.divisor,) * columns)
    levels = levels_of(encoding, rows)
    reading = Reading(encoding, named, scaling, labels, levels, adapted)
    features = reading.scaled(cells, what="X")
    require_apart(reading.scaling, cells, columns=encoding.feature_names, what="X")
    encoded = labels.encode(y, what="y", rows=len(features))
    dataset = dataset_of(reading, rows, (features, encoded), row_ids, test=test, test_ids=test_ids)
    points = points_of(
        dataset.features, dataset.labels, len(dataset.classes), sample_weight=sample_weight
    )
    model, tolerance = _family(settings, dataset, reading, points)
    return Fitted(dataset, reading, _engine(settings, dataset, model, points, tolerance))


def _family(
    settings: FitSettings, dataset: Dataset, reading: Reading, points: Points
) -> tuple[TargetModel, float]:
    """The family of target models, and the tolerance of training."""
    adapted = reading.adapted
    if adapted is None:
        assert isinstance(settings.target, str)
        family, own = family_of(settings.target, reading.labels), settings.settings
    elif isinstance(adapted, AdaptedTarget):
        adapted.given.parameter_count(points.features.shape[1], points.classes)
        return adapted.given, float(settings.settings["tolerance"])
    elif isinstance(adapted.target, Boxed):
        test = Points(dataset.test_features, dataset.test_labels, points.classes)
        model = adapted.target.family(reading.labels.names, points, test)
        return model, float(settings.settings["tolerance"])
    else:
        family, own = adapted.target.family, {**settings.settings, **adapted.target.settings}
    config = targets_config(family, own, settings.seed)
    if settings.chooses_c:
        config = _with_chosen_c(config, dataset, points)
    model = config.build(classes=points.classes)
    if points.sample_weight is not None and model.optimum is None:
        raise InvalidInput(f"{model.name} takes no sample_weight; leave it out")
    model.parameter_count(points.features.shape[1], points.classes)  # or says what is wrong
    return model, config.tolerance


def _with_chosen_c(config: TargetsConfig, dataset: Dataset, points: Points) -> TargetsConfig:
    """The settings with the C of the lowest loss of held-out rows."""
    if points.sample_weight is not None:
        raise InvalidInput("C='auto' takes no sample_weight; set C to a number")
    found = choose_c(dataset, config)
    if found is None:
        raise InvalidInput(
            "C='auto': no C has a held-out loss, since models of two thirds of the rows do not converge or "
            "lack a class; set C to a number"
        )
    return config.model_copy(update={"C": found.C})


def _engine(
    settings: FitSettings, dataset: Dataset, model: TargetModel, points: Points, tolerance: float
) -> Engine:
    subsets = settings.subsets.for_points(len(points.labels))
    plan = Plan(subsets, settings.predictor, settings.automatic, settings.accuracy)
    if model.has_parameters and model.predictable and not settings.automatic:
        plan.require_memory(model, points)
    problem = problem_of(model, points, tolerance=tolerance, row_ids=dataset.row_ids)
    return Engine(problem, plan)
