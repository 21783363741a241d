"""ModelPred: the pipeline's steps in memory, for a notebook.

`fit` scales the rows and trains the model of all of them. The first call that is answered by
prediction draws subsets of the rows, trains the target model on every subset and fits the predictor,
with the functions that the pipeline's stages call; so the same rows and settings give the same
numbers. `save` writes what the stages write, in the same formats.
"""

import logging
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modelpred.api.attribution import Attribution, Explanation, attributed, explained
from modelpred.api.candidates import ranked_candidates
from modelpred.api.cells import beside, cleaned_table, original_cells
from modelpred.api.contexts import context_of
from modelpred.api.conventions import changed, score, tags, with_nested
from modelpred.api.edited import EditedModel
from modelpred.api.edits import TrainingSet, edited_set, fit_of, ids_with, model_of
from modelpred.api.evaluation import (
    NO_ROWS,
    SHARES,
    Reliability,
    RemovalCurve,
    reliability_of,
    removal_curve,
    values_in_order,
)
from modelpred.api.files import DESCRIPTION_FILE, Fitted, read_fitted, write_fitted
from modelpred.api.forgetting import Forgotten, Given, remaining
from modelpred.api.frames import is_frame, require_same_rows, row_names, usable_columns
from modelpred.api.given_rows import given_rows, given_test_rows
from modelpred.api.inputs import (
    ArrayLike,
    RowNames,
    array_of,
    frame_of,
    one_row,
    positions_of,
    read_weights,
    unique_ids,
)
from modelpred.api.labels import Labels, learn_labels
from modelpred.api.printing import WideTable
from modelpred.api.progress import progress_bar
from modelpred.api.reading import Reading, dataset_of, encoded_cells, encoding_of, levels_of
from modelpred.api.report import NO_TEST, report_of, study_configs
from modelpred.api.runs import is_run, read_run
from modelpred.api.settings import (
    AUTO,
    SCALINGS,
    Asked,
    automatic_subsets,
    families_of,
    family_of,
    plain_settings,
    require_target,
    subsets_argument,
    subsets_config,
    targets_config,
)
from modelpred.api.suspects import Suspects, probable_suspects, suspicious_rows
from modelpred.api.tables import ValueTable
from modelpred.api.uncertainty import (
    MODEL,
    TRUTH,
    MemorizedRows,
    PredictiveDistribution,
    memorized_rows,
    predictive_distribution,
)
from modelpred.api.values import (
    Groups,
    checked_orders,
    chosen_rows,
    estimated_values,
    models_of_selection,
    models_of_values,
    suggest_groups,
    uses_gains,
)
from modelpred.dataset import Dataset
from modelpred.dataset.config import ScalingName
from modelpred.dataset.scaling import Scaling, fit_scaling, require_apart
from modelpred.engine import Engine, EngineChoice, Plan, Prepared, problem_of
from modelpred.errors import InvalidInput
from modelpred.estimators import (
    Adapted,
    AdaptedModule,
    AdaptedTarget,
    Boxed,
    Estimator,
    TorchHead,
    adapted,
    adapted_module,
    adapted_target,
    weight_column,
)
from modelpred.numbers import MOST_DRAWS, Number, seed_number, whole_number
from modelpred.predictor import Predictor, PredictorConfig, answer_curve, with_break_even
from modelpred.predictor import fidelity as fidelity_table
from modelpred.predictor.recipe_fidelity import FidelityPlan, recipe_fidelity
from modelpred.refits import Refit, retrainings, rivals
from modelpred.studies.held_out import PARTS, rounds_of
from modelpred.studies.row_gains import has_row_gains
from modelpred.studies.utility import Scoring, StudyContext, UtilityName
from modelpred.subsets import SubsetsConfig
from modelpred.targets import Points, TargetModel, TorchTarget, points_of
from modelpred.targets.families import FAMILIES
from modelpred.targets.shards import Bank

if TYPE_CHECKING:
    from modelpred.page import Page

ARGUMENTS = ("target", "subsets", "scaling", "tolerance", "seed", "predictor", "progress")
"""Of the constructor; others are settings of the family."""

LEARNING = {
    "network": pl.String,
    "targets": pl.Int64,
    "error": pl.Float64,
    "seconds": pl.Float64,
}
EXPLAINING = 4
"""Models that explaining a prediction needs, about, as a multiple of the rows."""

log = logging.getLogger(__name__)


@final
class ModelPred:
    """Predicts the model that training on any subset of the rows would give.

        mp = ModelPred(LogisticRegression(C=0.1)).fit(X, y, test=(X_test, y_test))
        print(mp.without([3, 14]).compare())

    In the order of use:

    1. The model of all rows: `predict`, `predict_proba`, `score`, `reliability`, `to_sklearn`.
    2. Other training rows: `without`, `reweighted`, `with_points`, `edit`, `model_for`. Each result
       has `compare`, `predict`, `coefficients`, `to_sklearn` and `retrained`.
    3. Which labels look wrong: `suspects`; `cleaned` gives the table without them.
    4. What rows are worth: `values`, of rows or of groups; `removal_curve` shows whether to believe
       them; `select` keeps the best rows, `rank_candidates` orders rows to add.
    5. How sure predictions are: `predictive`. What they rest on: `explain`, `attribute`. Which rows
       are known by heart: `memorization`.
    6. How good the predicted models are: `fidelity`, `certificate`, `engine_used`.
    7. To keep: `report`, `save` and `load`; `forget` removes rows for good.

    Results print a summary, `plot()` draws them with matplotlib, tables are of polars
    (`to_pandas()` converts them), and `with_cells=True` adds the rows' original cells.

    Args:
        target: an estimator of scikit-learn, or a Pipeline that ends in one. LogisticRegression,
            LinearSVC, Ridge, RidgeClassifier, and these with CV in their name, can be predicted;
            any other with `fit` and `predict` is trained on every subset. Preprocessing is fitted
            once, on all rows, and so is what is chosen by cross-validation. Or the name of a
            family: logistic, softmax, svm, ridge, ridge_classifier or mlp; `auto` takes ridge for
            labels that are floating numbers or more than 20 different whole numbers, logistic for
            two classes and softmax for more. Or a TorchTarget: a torch module with its training,
            whose models are retrained (`engine="exact"`).
        subsets: models to train for the fit of the predictor, four fifths of them on subsets of any
            size and the rest on bootstrap resamples; up to 1,500 more are trained to watch and judge
            it. `auto` stops when more are not worth it (`learning`), at the latest after 8,000 for up
            to 2,000 rows, 8,000 * 2,000 / rows for more, and 1,600 from 10,000 rows on; 0 trains none
            for the fit. A `SubsetsConfig` says all of it.
        scaling: of a family by name: standardise (the default), largest_row_norm or none, with
            constants from the rows of the fit; **parameters refer to the scaled features**
            (`scaling` has the constants). An estimator takes the columns as they are.
        tolerance: a model counts as trained when its parameters are this near to the optimum,
            relative to their size.
        seed: decides the subsets, the network's start, and where an mlp's training starts.
        predictor: settings of the network, with their own seed.
        progress: whether a terminal shows how far the fit is.
        settings: of a family by name, such as `C=1.0`, or `hidden=16` for mlp.

    Raises:
        InvalidInput: an unknown family, scaling or setting, or a value out of range.
    """

    def __init__(
        self,
        target: str | Estimator = AUTO,
        *,
        subsets: Number | str | SubsetsConfig = AUTO,
        scaling: str | None = None,
        tolerance: Number = 1e-6,
        seed: Number = 0,
        predictor: PredictorConfig | None = None,
        progress: bool = True,
        **settings: Number | str,
    ) -> None:
        self.target = target
        self.subsets = subsets
        self.tolerance = tolerance
        self.seed = seed
        self.progress = progress
        self.settings = settings
        self._others = scaling, predictor  # `scaling` and `predictor` are what was fitted
        self._fitted: Fitted | None = None
        self._fidelity: pl.DataFrame | None = None
        self._other_methods: dict[str, Refit] | None = None
        self._given: Given | None = None
        self._engine_used: EngineChoice | None = None
        self._configure()

    @classmethod
    def from_torch(
        cls,
        module: Any,  # noqa: ANN401 - other things than modules are refused in one line
        *,
        layer: str | None = None,
        loss: str | None = None,
        C: Number | None = None,
        weight_decay: Number | None = None,
        batch_size: Number = 256,
        device: str | None = None,
        **arguments: Any,  # noqa: ANN401 - those of the constructor
    ) -> "ModelPred":
        """A ModelPred whose target is the last linear layer of a torch module; the rest is frozen.

        The module computes the features of each row once, in evaluation mode. Tables, of `fit` and
        of all other methods, are what the module takes: a tensor or array with a row at each
        position of its first axis, or a dict of them by the argument of the module's forward.

        Args:
            module: of torch; it is copied, never changed.
            layer: name of its last linear layer; default: the last `nn.Linear` of the module.
            loss: cross_entropy, binary_cross_entropy or mse; default: what the outputs and labels
                call for.
            C: weight of the data against the penalty on the layer's weights; default: 1.
            weight_decay: in place of C, as the optimisers of torch have it (SGD): C is
                1 / (weight_decay x rows), for mse twice that. The bias has no penalty.
            batch_size: rows that go through the module at once.
            device: where the module runs; default: a GPU if there is one.
            arguments: of `ModelPred`: subsets, tolerance, seed, predictor, progress.

        Raises:
            InvalidInput: no such layer, or arguments that cannot be used.
        """
        head = TorchHead(
            module,
            layer=layer,
            loss=loss,
            C=C,
            weight_decay=weight_decay,
            batch_size=batch_size,
            device=device,
        )
        return cls(head, **arguments)

    def _configure(self) -> None:
        """Read the arguments; InvalidInput where they cannot be used."""
        scaling, predictor = self._others
        require_target(self.target, scaling=scaling, settings=self.settings)
        self._target = self.target
        self._settings = plain_settings({"tolerance": self.tolerance, **self.settings})
        self._scaling: ScalingName = SCALINGS[scaling or "standardise"]
        self._seed = seed_number(self.seed)
        self._subsets = subsets_config(self.subsets, self._seed)
        self._automatic = automatic_subsets(self.subsets)
        self._predictor_config = predictor or PredictorConfig(seed=self._seed)
        self._progress = self.progress
        for family in families_of(self.target):
            targets_config(family, self._settings, self._seed)

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: FBT001, FBT002 - scikit-learn's
        """The arguments of the constructor; with `deep` those of an estimator as `target__C`."""
        scaling, predictor = self._others
        own = {
            "target": self.target,
            "subsets": self.subsets,
            "scaling": scaling,
            "tolerance": self.tolerance,
            "seed": self.seed,
            "predictor": predictor,
            "progress": self.progress,
            **self.settings,
        }
        return with_nested(own) if deep else own

    def set_params(self, **params: Any) -> "ModelPred":  # noqa: ANN401 - those of the constructor
        """Change arguments of the constructor, for the next fit.

        Raises:
            InvalidInput: an unknown name, or a value that cannot be used; then nothing has changed.
        """
        new = changed(self.get_params(deep=False), params, known=ARGUMENTS)
        ModelPred(**new)  # or says what is wrong
        for name in ("target", "subsets", "tolerance", "seed", "progress"):
            setattr(self, name, new[name])
        self._others = new["scaling"], new["predictor"]
        self.settings = {name: value for name, value in new.items() if name not in ARGUMENTS}
        return self

    def __sklearn_is_fitted__(self) -> bool:
        """Whether `fit` has been called."""
        return self._fitted is not None

    def __sklearn_tags__(self) -> Any:  # noqa: ANN401 - scikit-learn's Tags, without stubs
        """What scikit-learn asks an estimator about itself."""
        return tags(self.target)

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        ids: RowNames | None = None,
        test: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> "ModelPred":
        """Read the rows and train the model of all of them.

        The predictor is fitted at the first call that is answered by prediction, and kept.

        Args:
            X: numpy or torch, [rows, columns] of finite numbers; or a frame of pandas, polars or
                pyarrow with columns of numbers, true and false, text and dates, whose missing
                cells are filled. Its columns are judged as those of a file.
            y: a label for each row, of any type; numbers, or more than 20 different whole numbers,
                are predicted as such.
            sample_weight: factor of each row's loss in every subset, above zero; default: 1.
            ids: a name for each row; by default its label in the index of pandas, or its position.
            test: rows with labels that training never sees: `fidelity` and `compare` score models
                on them, and without them on the rows of X.

        Raises:
            InvalidInput: tables or labels that cannot be used; the message says why.
        """
        self._configure()
        named = is_frame(X)
        if named:
            require_same_rows(X, y, what="y", of="X")
        if ids is None:
            ids = row_names(X, what="X") if named else None
        if not isinstance(self._target, str):
            self._fit_estimator(Given(X, y, sample_weight, ids, test))
            return self
        self._given = None
        rows, named = frame_of(X, what="X")
        if named:
            rows = usable_columns(rows, what="X")
        row_ids = unique_ids(range(len(rows)) if ids is None else ids, rows=len(rows))
        regression = None if self._target == AUTO else FAMILIES[self._target].regression
        labels = learn_labels(y, what="y", regression=regression)
        factors = weight_column(sample_weight, rows=len(rows))
        self._fit(rows, y, row_ids, named=named, labels=labels, test=test, sample_weight=factors)
        return self

    def _fit_estimator(self, given: Given) -> None:
        """Fit to the rows as the estimator's preprocessing gives them."""
        target: Any = self._target
        adapt = {TorchHead: adapted_module, TorchTarget: adapted_target}.get(type(target), adapted)
        found, features = adapt(
            target,
            given.table,
            given.labels,
            sample_weight=given.sample_weight,
            seed=self._seed,
            what="X",
        )
        rows = pl.DataFrame(features, schema=list(found.feature_names))
        ids = range(len(rows)) if given.ids is None else given.ids
        self._fit(
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
        self._given = given

    def _fit(
        self,
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
    ) -> None:
        encoding = encoding_of(rows, what="X")
        cells = encoded_cells(encoding, rows, what="X")
        if adapted is None:
            scaling = fit_scaling(self._scaling, cells)
        else:
            columns = len(rows.columns)
            scaling = Scaling("none", (0.0,) * columns, (adapted.target.divisor,) * columns)
        levels = levels_of(encoding, rows)
        reading = Reading(encoding, named, scaling, labels, levels, adapted)
        features = reading.scaled(cells, what="X")
        require_apart(reading.scaling, cells, columns=encoding.feature_names, what="X")
        encoded = labels.encode(y, what="y", rows=len(features))
        dataset = dataset_of(
            reading, rows, (features, encoded), row_ids, test=test, test_ids=test_ids
        )
        points = points_of(
            dataset.features, dataset.labels, len(dataset.classes), sample_weight=sample_weight
        )
        model, tolerance = self._family(dataset, reading, points)
        self._fitted = Fitted(dataset, reading, self._engine(dataset, model, points, tolerance))
        self._fidelity = self._other_methods = None
        self._engine_used = None

    def _family(
        self, dataset: Dataset, reading: Reading, points: Points
    ) -> tuple[TargetModel, float]:
        """The family of target models, and the tolerance of training."""
        adapted = reading.adapted
        if adapted is None:
            family, own = family_of(self._target, reading.labels), self._settings
        elif isinstance(adapted, AdaptedTarget):
            adapted.given.parameter_count(points.features.shape[1], points.classes)
            return adapted.given, float(self._settings["tolerance"])
        elif isinstance(adapted.target, Boxed):
            test = Points(dataset.test_features, dataset.test_labels, points.classes)
            model = adapted.target.family(reading.labels.names, points, test)
            return model, float(self._settings["tolerance"])
        else:
            family, own = adapted.mapped.family, {**self._settings, **adapted.mapped.settings}
        config = targets_config(family, own, self._seed)
        model = config.build(classes=points.classes)
        if points.sample_weight is not None and model.optimum is None:
            raise InvalidInput(f"{model.name} takes no sample_weight; leave it out")
        model.parameter_count(points.features.shape[1], points.classes)  # or says what is wrong
        return model, config.tolerance

    def _engine(
        self, dataset: Dataset, model: TargetModel, points: Points, tolerance: float
    ) -> Engine:
        subsets = self._subsets.for_points(len(points.labels))
        plan = Plan(subsets, self._predictor_config, self._automatic)
        if model.has_parameters and model.predictable and not self._automatic:
            plan.require_memory(model, points)
        problem = problem_of(model, points, tolerance=tolerance, row_ids=dataset.row_ids)
        return Engine(problem, plan)

    def __repr__(self) -> str:
        """The family and what it was fitted to."""
        if self._fitted is None:
            return f"ModelPred({self._target!r}), not fitted"
        dataset, engine = self._fitted.dataset, self._fitted.engine
        source = self._fitted.reading.adapted
        to = ""
        count = len(dataset.feature_names)
        if source is not None and not self.model.has_parameters:
            count = source.preprocessing.count
        if engine.is_prepared:
            to = f"{len(engine.prepared().targets.subsets):,} subsets of "
        return (
            f"ModelPred({repr(self.model.name) if source is None else source}), fitted to {to}"
            f"{len(dataset.row_ids):,} rows with {count:,} features"
        )

    @property
    def classes(self) -> NDArray[Any]:
        """The classes as the labels named them, in the order of their index; none for numbers."""
        return self._ready.reading.labels.names

    @property
    def classes_(self) -> NDArray[Any]:
        """As `classes`, by scikit-learn's name."""
        return self._reading.labels.names

    @property
    def n_features_in_(self) -> int:
        """How many columns the table of the fit had that count."""
        reading = self._reading
        own = reading.adapted
        return len(reading.encoding.column_names) if own is None else own.preprocessing.count

    @property
    def feature_names_in_(self) -> NDArray[Any]:
        """Names of these columns.

        Raises:
            AttributeError: the table of the fit did not name its columns.
        """
        reading = self._reading
        names = reading.encoding.column_names if reading.named else None
        if reading.adapted is not None:
            names = reading.adapted.preprocessing.columns
        if names is None:
            raise AttributeError("the table of the fit did not name its columns")
        return np.array(names, dtype=object)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels [rows] that the model of all rows predicts."""
        return self.full_model().predict(X)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Class probabilities [rows, classes] of the model of all rows; InvalidInput without any."""
        return self.full_model().predict_proba(X)

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Scores of the model of all rows, as `EditedModel.decision_function`."""
        return self.full_model().decision_function(X)

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: NDArray[Any] | None = None) -> float:
        """Accuracy of the model of all rows, or for numbers R^2."""
        predicted = self.predict(X)
        classes = bool(len(self.classes))
        return score(predicted, array_of(y), classes=classes, weights=sample_weight)

    @property
    def row_ids(self) -> tuple[str, ...]:
        """The id of each row, in the order of the columns of weights."""
        return self._ready.problem.row_ids

    @property
    def model(self) -> TargetModel:
        """The family with its settings."""
        return self._ready.problem.model

    @property
    def predictor(self) -> Predictor:
        """The fitted set function: a refit like any other, on tensors.

        It is fitted at its first use, and so are the models of `bank` trained then.
        """
        return self._prepared().predictor

    @property
    def bank(self) -> Bank:
        """Every subset that was trained, with its parameters."""
        return self._prepared(judged=True).targets.bank

    @property
    def engine_used(self) -> EngineChoice | None:
        """How the models of the latest call were found, and what the other way would have cost.

        None before a call that trains or predicts models. `print` shows it in words.
        """
        return self._engine_used

    @property
    def learning(self) -> pl.DataFrame:
        """What was fitted on the way to the predictor; the log says why no more was.

        Columns network, targets (trained subsets of the fit), error (mean relative error of the
        parameters on validation subsets), seconds (of training and fitting so far). Empty after
        `load`.
        """
        rungs = self._prepared().rungs
        return pl.DataFrame([vars(rung) for rung in rungs], schema=LEARNING)

    @property
    def outcomes(self) -> pl.DataFrame:
        """How many subsets were trained, by role and design, and how many of them are of no use.

        Columns role, design, subsets, redrawn (they lacked a class and were drawn again), degenerate
        (a class is still missing, so that there is no optimum) and not_converged.
        """
        return self._prepared(judged=True).targets.outcomes

    @property
    def scaling(self) -> Scaling:
        """How columns become features: (x - offset) / divisor."""
        return self._ready.reading.scaling

    @property
    def full_parameters(self) -> NDArray[np.float64]:
        """Parameters of the model of all rows, trained exactly."""
        self._require_parameters("full_parameters")
        return self._ready.problem.full_parameters.numpy().copy()

    def predict_parameters(
        self, weights: ArrayLike, refine: Number = 0, *, stages: Number | None = None
    ) -> NDArray[np.float64]:
        """Predicted parameters [subsets, parameters] of the models that subsets would give.

        For each output (one, or one a class) the coefficients of the scaled features, then the
        intercept.

        Args:
            weights: [subsets, points], how often each subset takes each row.
            refine: Newton steps from the prediction towards retraining; 0.5 is half of a step.
            stages: after how many of the network's stages to stop, for a cheaper and less exact
                answer: 0 is the anchor; `predictor.stages`, the default, is all of them.
        """
        rows = read_weights(weights, self.row_ids)
        return self.predictor.predict(rows, refine=refine, stages=stages).numpy()

    def retrain(self, weights: ArrayLike) -> NDArray[np.float64]:
        """The same by exact training; a model that did not converge is a row of nan."""
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

        It holds without retraining, for about the price of a Newton step. None for mlp, which
        stops before its optimum, infinity for a subset without one.

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
        self, *, seeds: Number = 2, subsets: Number = 100, judged: Number = 50
    ) -> pl.DataFrame:
        """Errors on held-out subsets, refined and beside every rival; a row per method and design.

        Of a TorchTarget what can be known at all: how far runs of other seeds agree, the ceiling
        that this sets, smoothness, and the LDS of predictions of scores beside rivals, with columns
        as `modelpred.predictor.recipe_fidelity`. The arguments are of these: the target is the mean
        of `seeds` runs, predictions learn from `subsets` random halves and are judged on others.

        Columns as `modelpred.predictor.fidelity`. Without test rows in the fit, the losses
        compared are those on all training rows, and their column is called `pool_loss_error`. The
        column `break_even` is the number of queries after which preparing the predictor and
        predicting cost less than exact retraining; null where they never do.
        """
        if isinstance(model := self._ready.problem.model, TorchTarget):
            plan = FidelityPlan(
                seeds=whole_number(seeds, "seeds"),
                fit=whole_number(subsets, "subsets"),
                judged=whole_number(judged, "judged"),
                seed=self._seed,
            )
            ready = self._ready
            with progress_bar(shown=self._progress) as report:
                return WideTable(
                    recipe_fidelity(
                        model, ready.problem.points, ready.scored_points, plan, progress=report
                    )
                )
        if self._fidelity is None:
            ready, predictor, bank = self._ready, self.predictor, self.bank
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
                bank.select(role="test"),
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
            problem, targets = self._ready.problem, self.bank.usable(role="fit")
            self._other_methods = rivals(
                problem.model, problem.points, *targets, tolerance=problem.tolerance
            )
        return self._other_methods

    def report(
        self, folder: str | Path, *, rows: Number = 10, **studies: Mapping[str, Any]
    ) -> Path:
        """Run all studies and write the pipeline's report, one HTML file that needs no network.

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
        with progress_bar(shown=self._progress) as progress:
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

    def without(self, rows: RowNames, *, engine: str = "auto", refine: Number = 0) -> EditedModel:
        """The model without these training rows.

        Args:
            rows: positions (whole numbers) or ids (texts).
            engine: exact retrains, predicted predicts, auto takes what costs less; the result's
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

    def _model_of(
        self, edit: TrainingSet, *, engine: str, refine: Number, bounded: bool = True
    ) -> EditedModel:
        """The model of a training set, and the record of the engine that gave it."""
        with progress_bar(shown=self._progress) as report:
            model = model_of(
                self._ready, edit, engine=engine, refine=refine, bounded=bounded, progress=report
            )
        self._engine_used = model.engine
        return model

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
            engine: as `without`; with new labels or added rows auto retrains, which costs less than
                to extend the predictor.
            refine: as `predict_parameters`.
            bounded: whether a predicted model has its certificate.

        Raises:
            InvalidInput: unknown rows, classes or columns, or a weight below zero.
        """
        edit = edited_set(
            self._ready, weights=weights or {}, labels=labels or {}, added=added, ids=ids
        )
        return self._model_of(edit, engine=engine, refine=refine, bounded=bounded)

    def reweighted(
        self,
        weights: Mapping[Any, Number] | ArrayLike,
        *,
        engine: str = "auto",
        refine: Number = 0,
    ) -> EditedModel:
        """The model of training rows with other weights, which compares as that of `without`.

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

    def model_for(
        self, weights: ArrayLike, *, engine: str = "auto", refine: Number = 0
    ) -> EditedModel:
        """The model that a subset of the training rows would give.

        Args:
            weights: [points], how often the subset takes each row.
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

    def full_model(self) -> EditedModel:
        """The model of all rows, trained exactly."""
        ready = self._ready
        return EditedModel(
            f"Of all {len(self.row_ids)} training rows:",
            ready.problem.full_parameters.numpy().copy(),
            None,
            np.ones(len(self.row_ids)),
            ready.problem.points,
            ready.problem.row_ids,
            ready.reference,
            EngineChoice("exact", models=1),
        )

    def to_torch(self) -> nn.Module:
        """A copy of the module with the model of all rows, as `EditedModel.to_torch`."""
        return self.full_model().to_torch()

    def to_sklearn(self) -> Estimator:
        """The model of all rows as a fitted estimator, as `EditedModel.to_sklearn`."""
        return self.full_model().to_sklearn()

    def with_points(
        self,
        X_new: ArrayLike,
        y_new: ArrayLike,
        *,
        ids: RowNames | None = None,
        engine: str = "auto",
        refine: Number = 0,
    ) -> EditedModel:
        """The model with these rows added to the training rows; fitting need not have seen them.

        Args:
            X_new: [rows, columns], unscaled, with the columns of the fit.
            y_new: their labels, of classes that the fit saw.
            ids: a name for each; by default new-0, new-1, ...
            engine: as `without`; auto retrains, which costs less than to extend the predictor.
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

    def values(
        self,
        X_test: ArrayLike | None = None,
        y_test: ArrayLike | None = None,
        *,
        method: str = "shapley",
        groups: Groups | None = None,
        utility: str | Scoring = "loss",
        permutations: Number = 100,
        refine: Number = 1.0,
        engine: str = "auto",
        seed: Number = 0,
        with_cells: bool = False,
        **settings: Number | str | None,
    ) -> ValueTable:
        """What each training row is worth for the test rows: row_id, value, standard_error, rank.

        The result is a polars table; `plot()` draws it, `to_pandas()` converts it.

        With groups a row of the table is a group, whose rows join together: group, rows, value,
        standard_error, rank. Up to 16 players are enumerated and have no error.

        Args:
            X_test: rows to score models on, unscaled, with the columns of the fit; by default the
                test rows of the fit, or else the training rows.
            y_test: their labels.
            method: shapley, banzhaf, beta_shapley (`alpha=`, `beta=`) or leave_one_out.
            groups: the group of each training row (a vendor, a source, a day).
            utility: loss, accuracy, squared_error, or a function from scores [subsets, rows,
                outputs] and labels [rows] to a number for each subset, the higher the better.
            permutations: budget in random orders, an even number; more is more certain. Of more than
                2,000 rows, less is spent (docs/values.md).
            refine: as `predict_parameters`; with 0 values take a little more than half of the time
                and rank the rows less well (docs/values.md).
            engine: exact retrains the models, predicted predicts them, auto takes what costs less;
                `engine_used` says which.
            seed: of the random orders.
            with_cells: whether the original cells of the rows stand at the right.
            settings: others of `ValuationConfig`: sampler, small, error, reliability, alpha, beta.

        Raises:
            InvalidInput: tables, groups or settings that cannot be used.
        """
        test = self._labelled(X_test, y_test, what="_test", fallback=self._ready.scored_points)
        rows = len(self.row_ids)
        gains = uses_gains(
            has_row_gains(self.model, self._ready.problem.points, utility),
            rows, groups=groups, method=method, sampler=settings.get("sampler", "auto"),
        )  # fmt: skip
        models = models_of_values(
            rows, groups=groups, method=method, permutations=permutations, gains=gains
        )
        if groups is None:
            dataset = self._ready.dataset
            suggest_groups(dataset.rows, dataset.encoding.column_names)
        checked = 0 if gains else checked_orders(permutations, method=method) * rows
        with self._context(
            test, engine, models=models, checked=checked, refine=refine, own=False
        ) as (context, _):
            found = estimated_values(
                context,
                groups=groups,
                utility=utility,
                seed=seed,
                settings={"semivalue": method, "permutations": permutations, **settings},
            )
        if groups is not None and with_cells:
            raise InvalidInput("a group has no cells of its own; leave out with_cells")
        return ValueTable(self._with_cells(found, with_cells))

    def suspects(
        self,
        others: tuple[ArrayLike, ArrayLike] | None = None,
        *,
        other_ids: RowNames | None = None,
        pred_probs: ArrayLike | None = None,
        forest: bool = False,
        refine: Number = 0,
        engine: str = "auto",
        seed: Number = 0,
        with_cells: bool = False,
    ) -> Suspects:
        """Rows whose label looks wrong, and how many are; no test rows are needed.

        Models of an eighth of the training rows judge the labels of all other rows.

        Args:
            others: rows with labels that were not trained on, to judge, too.
            other_ids: a name for each of them; default: other-0, other-1, ...
            pred_probs: probabilities [rows, classes] of any classifier for the training rows, each by
                models without the row, as cleanlab takes them; they are judged in place of the
                target's own. Classes are in the order of `classes`.
            forest: average the models' probabilities with those of a random forest of
                scikit-learn; finds more where classes are not divided by a linear score.
            refine: as `predict_parameters`.
            engine: exact retrains the models, predicted predicts them, auto takes what costs less;
                `engine_used` says which.
            seed: of the parts and of the forest.
            with_cells: whether the original cells of the rows stand at the right.

        Raises:
            InvalidInput: tables that cannot be used, or a forest for svm or a regression.
        """
        ready = self._ready
        pool = ready.problem.points
        if pred_probs is not None:
            if others is not None or forest:
                raise InvalidInput("pred_probs judge the training rows alone; leave out the rest")
            judged = probable_suspects(
                read_weights(pred_probs), pool.labels, ready.reading.labels, row_ids=self.row_ids
            )
            return replace(judged, rows=self._with_cells(judged.rows, with_cells))
        more = None if others is None else ready.reading.points(*others, what="_others")
        count = 0 if more is None else len(more.labels)
        named = [f"other-{row}" for row in range(count)] if other_ids is None else other_ids
        models = rounds_of(len(pool.labels)) * PARTS
        with self._context(pool, engine, models=models, refine=refine, others=more) as (context, _):
            found = suspicious_rows(
                context,
                ready.reading.labels,
                seed=seed,
                forest=forest,
                others=more,
                other_ids=unique_ids(named, rows=count),
            )
        return replace(found, rows=self._with_cells(found.rows, with_cells))

    def select(
        self,
        k: Number,
        X_val: ArrayLike,
        y_val: ArrayLike,
        *,
        quota: str | Groups | None = None,
        swaps: Number = 5,
        refine: Number = 0,
        engine: str = "auto",
        with_cells: bool = False,
    ) -> pl.DataFrame:
        """The k training rows whose model is predicted best on the validation rows.

        Columns: row_id, position, and gain, by how much the predicted validation loss rises when
        the row leaves the choice; the row that would be missed most comes first. Judge the choice
        by rows that it was not made with.

        Args:
            k: how many rows to keep.
            X_val: rows to choose by, unscaled, with the columns of the fit.
            y_val: their labels.
            quota: `class`, or a group for each training row: each keeps its share of the choice.
            swaps: swaps that may improve the greedy choice.
            refine: as `predict_parameters`.
            engine: exact retrains the models, predicted predicts them, auto takes what costs less;
                `engine_used` says which.
            with_cells: whether the original cells of the rows stand at the right.

        Raises:
            InvalidInput: k out of range, tables or groups that cannot be used.
        """
        validation = self._ready.reading.points(X_val, y_val, what="_val")
        models = models_of_selection(len(self.row_ids), k)
        with self._context(validation, engine, models=models, refine=refine, own=False) as (
            context,
            _,
        ):
            found = chosen_rows(context, count=k, quota=quota, swaps=swaps)
        return self._with_cells(found, with_cells)

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
        """How sure predictions of rows really are: what the models of bootstrap resamples say.

        Mean, spread and 90% interval of every probability (or predicted number) and of every
        parameter; `blocks()` gives what each model says. Bootstrap intervals say how far this
        model depends on its rows. What a strong penalty shrinks is the same in all resamples and
        not in them: `about="truth"` asks where the true probabilities are.

        Args:
            X: rows to predict, unscaled, with the columns of the fit.
            about: `model`: models of bootstrap resamples; `truth`, for logistic and softmax: draws
                of parameters that the data and any penalty allow, without training.
            resamples: of the training rows, as many draws with replacement as there are rows; of
                `truth` the number of draws.
            refine: as `predict_parameters`; half a step makes most spreads those of retraining.
            engine: exact retrains the models, predicted predicts them, auto takes what costs less;
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
        """Which training rows models know only by heart, and what each row does to test rows.

        Args:
            test: rows with labels; by default the test rows of the fit, or else the training rows.
            subsets: random subsets; more is more certain.
            share: of the training rows in each subset.
            strongest: influences on test rows that are listed.
            refine: as `predict_parameters`.
            engine: exact retrains the models, predicted predicts them, auto takes what costs less;
                `engine_used` says which.
            seed: of the subsets.
            with_cells: whether the original cells of the rows stand at the right.

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
        """Which training rows are responsible for a parameter.

        Args:
            parameter: its position, or what its column is called (or `intercept`); of several
                classes (class, column).
            refine: as `predict_parameters`, of the model without each row; a single row changes
                little, so that exactness pays.
            engine: exact retrains the models, predicted predicts them, auto takes what costs less;
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
        """Which training rows a prediction rests on, and which few must go for it to flip.

        Removals are predicted jointly, not summed, and the set that is found is retrained once.

        Args:
            x: one row, unscaled, with the columns of the fit.
            largest: share of the training rows that may be removed to flip the prediction.
            refine: as `predict_parameters`; margins of a flip are small, so that exactness pays.
            engine: exact retrains the models, predicted predicts them, auto takes what costs less;
                `engine_used` says which.
            model: of an edit, whose prediction is explained by the rows that it leaves; default: the
                model of all rows.

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

    def explore(self, *, port: Number = 0, engine: str = "auto") -> "Page":
        """Show a page on which the training rows are edited, and the retrained model is seen.

        Returns the page with its address, to open in a browser on this machine; `stop()` ends it.

        Args:
            port: to listen on, on 127.0.0.1; 0: any free one.
            engine: of the models of edits, as `without`.

        Raises:
            InvalidInput: not fitted, or the port is in use.
        """
        # The page stands above the API and calls it.
        from modelpred.page import explore  # noqa: PLC0415

        return explore(self, port=whole_number(port, "port", least=0, most=65535), engine=engine)

    def reliability(
        self, X: ArrayLike | None = None, y: ArrayLike | None = None, *, bins: Number = 10
    ) -> Reliability:
        """How far the confidence of the model of all rows is from how often it is right.

        Args:
            X: rows that training never saw; by default the test rows of the fit.
            y: their labels.
            bins: of the confidence, equally wide.

        Raises:
            InvalidInput: no test rows, or a family without probabilities.
        """
        points = self._labelled(X, y, what="", fallback=self._ready.test_points)
        probabilities = self.full_model().probabilities_of(points)
        return reliability_of(probabilities, points.labels.numpy(), bins=bins)

    def removal_curve(
        self,
        values: pl.DataFrame | ArrayLike,
        X_test: ArrayLike | None = None,
        y_test: ArrayLike | None = None,
        *,
        shares: Sequence[Number] | None = None,
        utility: UtilityName = "loss",
        draws: Number = 10,
        refine: Number = 1.0,
        engine: str = "auto",
        seed: Number = 0,
    ) -> RemovalCurve:
        """The score of models without the rows of the highest, of the lowest and of random values.

        Good values give a score that falls fast without the highest and rises without the lowest.
        Use other rows than those that the values were estimated with.

        Args:
            values: what `values` returns, or a number for each training row.
            X_test: rows to score models on; by default the test rows of the fit, or else the
                training rows.
            y_test: their labels.
            shares: of the rows to remove; default: 5% to 50%.
            utility: loss, accuracy or squared_error.
            draws: random removals of each size, whose mean is shown.
            refine: as `predict_parameters`.
            engine: as `without`.
            seed: of the random removals.

        Raises:
            InvalidInput: values of other rows, or a share that is out of range.
        """
        test = self._labelled(X_test, y_test, what="_test", fallback=self._ready.scored_points)
        given = values if isinstance(values, pl.DataFrame) else array_of(values)
        ordered = values_in_order(given, self.row_ids)
        count = len(SHARES) if shares is None else len(shares)
        models = 1 + count * (2 + whole_number(draws, "draws", least=1, most=MOST_DRAWS))
        with self._context(test, engine, models=models, refine=refine, own=False) as (context, _):
            return removal_curve(
                context, ordered, shares=shares, utility=utility, draws=draws, seed=seed
            )

    def rank_candidates(
        self,
        X_new: ArrayLike,
        y_new: ArrayLike,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        *,
        ids: RowNames | None = None,
        refine: Number = 1.0,
        engine: str = "auto",
    ) -> pl.DataFrame:
        """Candidate rows in the order of what adding each of them alone would gain.

        Columns: row_id, position, label and gain: by how much the loss on the validation rows falls
        when the row joins the training rows.

        Args:
            X_new: candidates, unscaled, with the columns of the fit.
            y_new: their labels.
            X_val: rows to score models on; by default the test rows of the fit.
            y_val: their labels.
            ids: names of the candidates; by default new-0, new-1, ...
            refine: as `predict_parameters`.
            engine: as `without`.

        Raises:
            InvalidInput: tables that cannot be used, or no rows to score models on.
        """
        validation = self._labelled(X_val, y_val, what="_val", fallback=self._ready.test_points)
        models = len(array_of(y_new)) + 1
        with progress_bar(shown=self._progress) as report:
            choice = self._ready.engine.choose(
                engine, models=models, refine=refine, progress=report
            )
            self._engine_used = choice
            return ranked_candidates(
                self._ready, (X_new, y_new), validation, ids=ids, choice=choice, progress=report
            )

    def cleaned(
        self,
        *,
        drop: RowNames | pl.DataFrame | Suspects | None = None,
        relabel: Mapping[Any, Any] | pl.DataFrame | Suspects | None = None,
    ) -> pl.DataFrame:
        """The training rows as they were given, without some of them or with new labels.

        A polars table of row_id, the original cells and the label: write it with `write_csv`.

        Args:
            drop: rows to leave out, by position or id, or a table with row_id.
            relabel: new labels by position or id, or a table with row_id and suggested, such as
                `mp.suspects().rows.head(20)`.

        Raises:
            InvalidInput: unknown rows, a row in both, or a label of another class.
        """
        cells = original_cells(self._ready, self._given)
        return cleaned_table(self._ready, cells, drop=drop, relabel=relabel)

    def forget(self, rows: RowNames) -> Forgotten:
        """Remove rows from all that this ModelPred holds and saves from now on, by fitting anew.

        The result is that of `fit` on the rows that remain: no constant, level, trained model or
        predictor has seen the others. It takes as long as `fit`; `without` answers what would
        change in microseconds, but forgets nothing.

        Args:
            rows: positions (whole numbers) or ids (texts) of training rows; ids of test rows.

        Returns:
            What was forgotten; print it to read what else may still hold the rows.

        Raises:
            InvalidInput: unknown or repeated rows, or too few that remain to fit; then nothing
                has changed.
        """
        named = self._ready.reading.named
        left = remaining(self._ready, rows)
        places = left.training.places
        if self._ready.reading.adapted is not None:
            self._fit_estimator(self._raw.take(places, left))
            return left.forgotten
        factors = self._ready.problem.points.sample_weight
        self._fit(
            left.training.rows,
            left.training.labels,
            left.training.ids,
            named=named,
            labels=left.labels,
            test=None if left.test is None else (left.test.rows, left.test.labels),
            test_ids=None if left.test is None else left.test.ids,
            sample_weight=None if factors is None else factors[list(places)].numpy(),
        )
        return left.forgotten

    def save(self, folder: str | Path) -> None:
        """Write dataset/, targets/, predictor/ and modelpred.json: Parquet, safetensors, JSON.

        An estimator of scikit-learn is written as the name of its class with its settings and
        constants, its rows as the features that its preprocessing gave.

        Raises:
            InvalidInput: an estimator that may hold code, a black box or a torch module.
        """
        target = self._target
        asked = Asked(
            target=target if isinstance(target, str) else type(target).__name__,
            settings=self._settings,
            scaling=self._scaling,
            seed=self._seed,
            subsets=self._subsets,
            predictor=self._predictor_config,
            progress=self._progress,
            automatic=self._automatic,
        )
        write_fitted(self._ready, asked, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> "ModelPred":
        """What `save` wrote, or a project whose pipeline has run; checked, and nothing is executed.

        Raises:
            InvalidInput: a file is missing, damaged, or belongs to another fit.
        """
        folder = Path(folder)
        saved = (folder / DESCRIPTION_FILE).is_file() or not is_run(folder)
        fitted, asked = read_fitted(folder) if saved else read_run(folder)
        adapted = fitted.reading.adapted
        loaded = cls(
            asked.target if adapted is None else adapted.given,
            subsets=subsets_argument(asked),
            scaling=asked.scaling if adapted is None else None,
            seed=asked.seed,
            predictor=asked.predictor,
            progress=asked.progress,
            **asked.settings,
        )
        loaded._fitted = fitted
        return loaded

    @property
    def _reading(self) -> Reading:
        """That of the fit, for attributes that an unfitted estimator does not have."""
        if self._fitted is None:
            raise AttributeError("this ModelPred is not fitted; call fit(X, y) first")
        return self._fitted.reading

    @property
    def _raw(self) -> Given:
        if self._given is None:
            raise InvalidInput(
                "what the estimator was given is not saved; fit a new ModelPred to the rows that remain"
            )
        return self._given

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

        With `own` models are asked about the training rows, too, and about `others`.
        """
        fitted = fitted or self._ready
        asked = (test_points, fitted.problem.points if own else None, others)
        scored = [points for points in asked if points is not None]
        with progress_bar(shown=self._progress) as report:
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

    def _prepared(self, *, judged: bool = False) -> Prepared:
        """The trained subsets and the predictor, made at the first call; with those that judge it."""
        engine = self._ready.engine
        with progress_bar(shown=self._progress and not engine.is_prepared) as report:
            return engine.judged(progress=report) if judged else engine.prepared(progress=report)

    @property
    def rows(self) -> pl.DataFrame:
        """The training rows as they were given: row_id, their cells, and the label last."""
        return given_rows(self._ready.dataset, self._given)

    @property
    def test_rows(self) -> pl.DataFrame:
        """The test rows in the same form; none if the fit had none."""
        return given_test_rows(self._ready.dataset, self._given)

    @property
    def fitted(self) -> Fitted:
        """All that the fit made; its parts may change between versions."""
        return self._ready

    @property
    def _ready(self) -> Fitted:
        if self._fitted is None:
            raise InvalidInput("this ModelPred is not fitted; call fit(X, y) first")
        return self._fitted
