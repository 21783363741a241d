"""ModelPred: the pipeline's steps in memory, for a notebook.

`fit` scales the rows and trains the model of all rows. The first call that needs a prediction draws
subsets of the rows, trains the target model on each subset and fits the predictor. It uses the functions
of the pipeline's stages, so the same rows and settings give the same numbers. `save` writes the same
files as the stages.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from modelpred.api.conventions import changed, tags, with_nested
from modelpred.api.files import DESCRIPTION_FILE, Fitted, read_fitted, write_fitted
from modelpred.api.fitting import fit_estimator, fit_remaining, fit_table
from modelpred.api.forgetting import Forgotten, Given, remaining
from modelpred.api.frames import is_frame, require_same_rows, row_names
from modelpred.api.inputs import (
    ArrayLike,
    RowNames,
)
from modelpred.api.methods.edits import EditMethods
from modelpred.api.methods.full_model import FullModelMethods
from modelpred.api.methods.predictions import PredictionMethods
from modelpred.api.methods.quality import QualityMethods
from modelpred.api.methods.recipes import RecipeMethods
from modelpred.api.methods.rows import RowMethods
from modelpred.api.runs import is_run, read_run
from modelpred.api.settings import (
    AUTO,
    fit_settings,
    subsets_argument,
)
from modelpred.engine import ACCURACY
from modelpred.errors import InvalidInput
from modelpred.estimators import (
    Estimator,
    TorchHead,
)
from modelpred.numbers import Number, whole_number
from modelpred.predictor import PredictorConfig
from modelpred.subsets import SubsetsConfig

if TYPE_CHECKING:
    from modelpred.page import Page

ARGUMENTS = (
    *("target", "subsets", "scaling", "tolerance", "seed", "predictor", "accuracy"),
    "progress",
)
"""Of the constructor; others are settings of the family."""


@final
class ModelPred(
    FullModelMethods, EditMethods, RowMethods, PredictionMethods, QualityMethods, RecipeMethods
):
    """Retrains or predicts the model of any subset of the training rows.

        mp = ModelPred(LogisticRegression(C=0.1)).fit(X, y, test=(X_test, y_test))
        print(mp.without([3, 14]).compare())

    In the order of use:

    1. The model of all rows: `predict`, `predict_proba`, `score`, `reliability`, `to_sklearn`.
    2. Other training rows: `without`, `reweighted`, `with_points`, `edit`, `model_for`. Each result
       has `compare`, `predict`, `coefficients`, `to_sklearn` and `retrained`.
    3. Which labels look wrong: `suspects`; `cleaned` gives the table without them.
    4. What rows are worth: `values`, of rows or of groups; `removal_curve` checks the values by
       removing rows; `select` keeps the best rows, `rank_candidates` ranks rows to add. For a
       TorchTarget `training_effects` needs a few trainings only.
    5. How certain predictions are: `predictive`. Which rows matter for them: `explain`,
       `attribute`. Which rows the model has memorized: `memorization`.
    6. How accurate the predicted models are: `fidelity`, `certificate`, `engine_used`.
    7. Files: `report`, `save` and `load`; `forget` deletes rows.

    Results print a summary, and `plot()` draws them with matplotlib. Tables are polars tables
    (`to_pandas()` converts them); `with_cells=True` adds the rows' original cells.

    Args:
        target: an estimator of scikit-learn, or a Pipeline that ends in one. The parameters of
            LogisticRegression, LinearSVC, Ridge, RidgeClassifier, and of these with CV in their
            name, can be predicted; any other estimator with `fit` and `predict` is trained on every
            subset. Preprocessing is fitted once, on all rows; settings chosen by cross-validation
            are also chosen once, on all rows. Or the name of a family: logistic, softmax, svm,
            ridge, ridge_classifier or mlp; `auto` is ridge for labels that are floating-point
            numbers or more than 20 different whole numbers, logistic for two classes and softmax
            for more. Or a TorchTarget: a torch module with its training, which is always retrained.
        subsets: number of models to train for the fit of the predictor, four fifths of them on
            subsets of any size and the rest on bootstrap resamples; up to 1,500 more are trained for
            validation and test. `auto` stops when more models lower the error too little
            (`learning`), at the latest after 8,000 for up to 2,000 rows, 8,000 * 2,000 / rows for
            more, and 1,600 from 10,000 rows on; 0 trains none for the fit. A `SubsetsConfig` sets
            the number of each kind.
        scaling: of a family by name: standardise (the default), largest_row_norm or none, with
            constants from the rows of the fit; **parameters refer to the scaled features**
            (`scaling` has the constants). The columns of an estimator are not scaled.
        tolerance: largest distance of trained parameters to the optimum, relative to their size.
        seed: of the subsets, and of the initial parameters of the network and of an mlp.
        predictor: settings of the network, with their own seed.
        accuracy: largest mean relative error of predicted parameters at which `engine="auto"`
            predicts.
        progress: whether to show a progress bar.
        settings: of a family by name, such as `C=1.0`, or `hidden=16` for mlp. `C="auto"` is chosen
            at the fit: of 0.001, 0.01, ..., 100 the one with the lowest loss of held-out rows, in
            three folds of up to 1,500 rows.

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
        accuracy: Number = ACCURACY,
        progress: bool = True,
        **settings: Number | str,
    ) -> None:
        self.target = target
        self.subsets = subsets
        self.tolerance = tolerance
        self.seed = seed
        self.accuracy = accuracy
        self.progress = progress
        self.settings = settings
        self._others = scaling, predictor  # `scaling` and `predictor` are what was fitted
        self._settings = fit_settings(**self.get_params(deep=False))

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
    ) -> ModelPred:
        """A ModelPred whose target is the last linear layer of a torch module; the rest is frozen.

        The module computes the features of each row once, in evaluation mode. The inputs of `fit`
        and of all other methods are the inputs of the module: a tensor or array whose first axis
        has the rows, or a dict of them by the names of the arguments of the module's forward.

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
            arguments: of `ModelPred`: subsets, tolerance, seed, predictor, accuracy, progress.

        Raises:
            InvalidInput: no such layer, or arguments that cannot be used.
        """
        head = TorchHead(
            module, layer=layer, loss=loss, C=C,
            weight_decay=weight_decay, batch_size=batch_size, device=device,
        )  # fmt: skip
        return cls(head, **arguments)

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
            "accuracy": self.accuracy,
            "progress": self.progress,
            **self.settings,
        }
        return with_nested(own) if deep else own

    def set_params(self, **params: Any) -> ModelPred:  # noqa: ANN401 - those of the constructor
        """Change arguments of the constructor, for the next fit.

        Raises:
            InvalidInput: an unknown name, or a value that cannot be used; then nothing has changed.
        """
        new = changed(self.get_params(deep=False), params, known=ARGUMENTS)
        ModelPred(**new)  # or says what is wrong
        for name in ("target", "subsets", "tolerance", "seed", "accuracy", "progress"):
            setattr(self, name, new[name])
        self._others = new["scaling"], new["predictor"]
        self.settings = {name: value for name, value in new.items() if name not in ARGUMENTS}
        return self

    def __sklearn_is_fitted__(self) -> bool:
        """Whether `fit` has been called."""
        return self._fitted is not None

    def __sklearn_tags__(self) -> Any:  # noqa: ANN401 - scikit-learn's Tags, without stubs
        """The tags of the estimator, for scikit-learn."""
        return tags(self.target)

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        ids: RowNames | None = None,
        test: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> ModelPred:
        """Read the rows and train the model of all of them.

        The predictor is fitted at the first call that needs a prediction.

        Args:
            X: numpy or torch, [rows, columns] of finite numbers; or a frame of pandas, polars or
                pyarrow with columns of numbers, true and false, text and dates, whose missing
                cells are filled. The same rules as for a file decide which columns are used.
            y: a label for each row, of any type. Floating-point numbers, or more than 20 different
                whole numbers, are a regression.
            sample_weight: factor of each row's loss in every subset, above zero; default: 1.
            ids: a name for each row; by default its label in the index of pandas, or its position.
            test: rows with labels that are not used for training: `fidelity` and `compare` score
                models on them. By default, they score models on the rows of X.

        Raises:
            InvalidInput: tables or labels that cannot be used; the message says why.
        """
        self._settings = fit_settings(**self.get_params(deep=False))
        if is_frame(X):
            require_same_rows(X, y, what="y", of="X")
            ids = row_names(X, what="X") if ids is None else ids
        given = Given(X, y, sample_weight, ids, test)
        if isinstance(self._settings.target, str):
            self._set_fitted(fit_table(self._settings, given), None)
        else:
            self._set_fitted(fit_estimator(self._settings, given), given)
        return self

    def _set_fitted(self, fitted: Fitted, given: Given | None) -> None:
        """Replace the result of the last fit and all that was computed from it."""
        self._fitted, self._given = fitted, given
        self._fidelity = self._other_methods = self._engine_used = None

    def __repr__(self) -> str:
        """The family and what it was fitted to."""
        if self._fitted is None:
            return f"ModelPred({self._settings.target!r}), not fitted"
        dataset, engine = self._fitted.dataset, self._fitted.engine
        source = self._fitted.reading.adapted
        to = ""
        count = len(dataset.feature_names)
        if source is not None and not self.model.has_parameters:
            count = source.preprocessing.count
        if engine.is_prepared:
            to = f"{len(engine.so_far.targets.subsets):,} subsets of "
        chosen = ""
        if self._settings.chooses_c:
            chosen = f", C = {self.model.settings['C']:g} by validation"
        return (
            f"ModelPred({repr(self.model.name) if source is None else source}{chosen}), fitted to {to}"
            f"{len(dataset.row_ids):,} rows with {count:,} features"
        )

    def explore(self, *, port: Number = 0, engine: str = "auto") -> Page:
        """Open a page to change the training rows and see the retrained model.

        Returns the page with its address, to open in a browser on this machine; `stop()` ends it.

        Args:
            port: to listen on, on 127.0.0.1; 0: any free one.
            engine: of the models of edits, as `without`.

        Raises:
            InvalidInput: not fitted, or the port is in use.
        """
        # The page is above the API in the layers and calls it.
        from modelpred.page import explore  # noqa: PLC0415

        return explore(self, port=whole_number(port, "port", least=0, most=65535), engine=engine)

    def forget(self, rows: RowNames) -> Forgotten:
        """Delete rows from this ModelPred, and so from later saves, by fitting again without them.

        The result equals `fit` on the remaining rows: constants, levels, trained models and the
        predictor are computed without the deleted rows. It takes as long as `fit`. `without` is
        faster, but deletes nothing.

        Args:
            rows: positions (whole numbers) or ids (texts) of training rows; ids of test rows.

        Returns:
            What was deleted; its printed form lists what may still contain the rows.

        Raises:
            InvalidInput: unknown or repeated rows, or too few that remain to fit; then nothing
                has changed.
        """
        left = remaining(self._ready, rows)
        if self._ready.reading.adapted is None:
            self._set_fitted(fit_remaining(self._settings, self._ready, left), None)
        else:
            given = self._given_rows.take(left.training.places, left)
            self._set_fitted(fit_estimator(self._settings, given), given)
        return left.forgotten

    def save(self, folder: str | Path) -> None:
        """Write dataset/, targets/, predictor/ and modelpred.json: Parquet, safetensors, JSON.

        An estimator of scikit-learn is written as the name of its class with its settings and
        constants, its rows as the features that its preprocessing gave.

        Raises:
            InvalidInput: an estimator that may hold code, a black box or a torch module.
        """
        write_fitted(self._ready, self._settings.asked(), Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> ModelPred:
        """The ModelPred that `save` wrote, or that of a project whose pipeline has run.

        Files are checked, and no code in them is executed.

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
            accuracy=asked.accuracy,
            progress=asked.progress,
            **asked.settings,
        )
        loaded._set_fitted(fitted, None)
        return loaded

    @property
    def _given_rows(self) -> Given:
        if self._given is None:
            raise InvalidInput(
                "what the estimator was given is not saved; fit a new ModelPred to the rows that remain"
            )
        return self._given
