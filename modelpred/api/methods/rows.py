"""Tables about rows: their values, wrong labels, the rows to keep or to add, the cleaned table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from modelpred.api.candidates import ranked_candidates
from modelpred.api.cells import cleaned_table, original_cells
from modelpred.api.evaluation import (
    SHARES,
    RemovalCurve,
    removal_curve,
    values_in_order,
)
from modelpred.api.inputs import (
    ArrayLike,
    RowNames,
    array_of,
    read_weights,
    unique_ids,
)
from modelpred.api.methods.state import FitState
from modelpred.api.predicted_values import Checks, checked_orders
from modelpred.api.suspects import Suspects, probable_suspects, suspicious_rows
from modelpred.api.tables import ValueTable
from modelpred.api.values import (
    Groups,
    chosen_rows,
    estimated_values,
    models_of_selection,
    models_of_values,
    shortcut_of,
    suggest_groups,
    values_trial,
)
from modelpred.engine import LESS_CERTAIN, Mixed
from modelpred.errors import InvalidInput
from modelpred.numbers import MOST_DRAWS, Number, whole_number
from modelpred.progress import progress_bar
from modelpred.studies.held_out import PARTS, rounds_of
from modelpred.studies.utility import Scoring, UtilityName


class RowMethods(FitState):
    """Methods of ModelPred that return what rows are worth, and which to keep, add or correct."""

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
        """The value of each training row for the test score: row_id, value, standard_error, rank.

        The result is a polars table; `plot()` draws it, `to_pandas()` converts it.

        With `groups`, the table has one row for each group, whose rows are added or left out
        together: group, rows, value, standard_error, rank. Up to 16 rows or groups are enumerated if
        the budget allows, without sampling error. Leave-one-out of more than 1,000 rows of a linear
        family, or with `sampler="direct"`, has the column bound: the largest distance of the value from
        that of retraining.

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
            engine: exact retrains the models, predicted predicts them, auto uses the faster way;
                `engine_used` says which.
            seed: of the random orders.
            with_cells: whether to add the original cells of the rows.
            settings: others of `ValuationConfig`: sampler, small, error, reliability, alpha, beta.

        Raises:
            InvalidInput: tables, groups or settings that cannot be used.
        """
        if groups is not None and with_cells:
            raise InvalidInput("a group has no cells of its own; leave out with_cells")
        test = self._labelled(X_test, y_test, what="_test", fallback=self._ready.scored_points)
        rows = len(self.row_ids)
        shortcut = shortcut_of(
            self.model, self._ready.problem.points, utility,
            groups=groups, method=method, sampler=settings.get("sampler", "auto"),
        )  # fmt: skip
        models = models_of_values(
            rows, groups=groups, method=method, permutations=permutations, shortcut=shortcut
        )
        if groups is None:
            dataset = self._ready.dataset
            suggest_groups(dataset.rows, dataset.encoding.column_names)
        players = rows if groups is None else len(set(array_of(groups).tolist()))
        checked = 0 if shortcut else checked_orders(permutations, method=method) * players
        asked: dict[str, Any] = {
            "groups": groups,
            "utility": utility,
            "seed": seed,
            "settings": {"semivalue": method, "permutations": permutations, **settings},
        }
        # A shortcut's models are always retrained.
        used = "exact" if shortcut and engine == "auto" else engine
        with self._context(
            test, used, models=models, checked=checked, refine=refine, own=False
        ) as (context, choice):
            checks = Checks()
            if isinstance(context.refits[context.subject], Mixed) and checked:
                trial = values_trial(context, **asked)
                if trial is None or trial.time >= 1:
                    self._engine_used = replace(choice, engine="exact", why=LESS_CERTAIN)
                    truth = context.truth
                    context = replace(context, refits={truth.name: truth})  # noqa: PLW2901
                else:
                    checks = trial.checks
            found, values = estimated_values(context, checks=checks, **asked)
        return ValueTable.of(self._with_cells(found, with_cells), values)

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
        """The score of models without the rows with the highest values, the lowest values, and random rows.

        If the values are good, the score falls fast without the highest and rises without the
        lowest. Use test rows that the values were not estimated with.

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
        """Rows whose label looks wrong, and the estimated number of wrong labels; needs no test rows.

        Each model is trained on an eighth of the training rows and checks the labels of the others.

        Args:
            others: rows with labels that were not in the fit, whose labels are also checked.
            other_ids: a name for each of them; default: other-0, other-1, ...
            pred_probs: probabilities [rows, classes] of any classifier for the training rows, from
                models that were trained without the row, as for cleanlab. They are used instead of
                the target's. Classes are in the order of `classes`.
            forest: average the models' probabilities with those of a scikit-learn random forest;
                finds more wrong labels if a linear model does not separate the classes.
            refine: as `predict_parameters`.
            engine: exact retrains the models, predicted predicts them, auto uses the faster way;
                `engine_used` says which.
            seed: of the parts and of the forest.
            with_cells: whether to add the original cells of the rows.

        Raises:
            InvalidInput: tables that cannot be used, or a forest for svm or a regression.
        """
        ready = self._ready
        pool = ready.problem.points
        if pred_probs is not None:
            if others is not None or forest:
                raise InvalidInput(
                    "pred_probs are for the training rows alone; leave out the other rows"
                )
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

    def cleaned(
        self,
        *,
        drop: RowNames | pl.DataFrame | Suspects | None = None,
        relabel: Mapping[Any, Any] | pl.DataFrame | Suspects | None = None,
    ) -> pl.DataFrame:
        """The original training rows, without some of them or with new labels.

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
        """Return k training rows whose model has a low loss on the validation rows.

        Columns: row_id, position, and gain, by how much the validation loss rises when the row is
        removed from the selection, the highest first. Judge the selection by other rows.

        Args:
            k: how many rows to keep.
            X_val: validation rows, unscaled, with the columns of the fit.
            y_val: their labels.
            quota: `class`, or a group for each training row: each keeps its share of the selection.
            swaps: of families without an optimum (mlp): swaps that may improve the greedy selection.
            refine: as `predict_parameters`, of families without an optimum.
            engine: of families without an optimum: exact retrains the models, predicted predicts
                them, auto uses the faster way. The few models of other families are retrained.
            with_cells: whether to add the original cells of the rows.

        Raises:
            InvalidInput: k out of range, tables or groups that cannot be used.
        """
        validation = self._ready.reading.points(X_val, y_val, what="_val")
        convex = self.model.optimum is not None
        models = models_of_selection(len(self.row_ids), k, optimum=convex)
        with self._context(validation, engine, models=models, refine=refine, own=False) as (
            context,
            _,
        ):
            found = chosen_rows(context, count=k, quota=quota, swaps=swaps)
        return self._with_cells(found, with_cells)

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
        """New rows, ranked by the decrease of the validation loss when each one alone is added.

        Columns: row_id, position, label and gain: the decrease of the loss on the validation rows
        when the row is added to the training rows.

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
        with progress_bar(shown=self._settings.progress) as report:
            choice = self._ready.engine.choose(
                engine, models=models, refine=refine, progress=report
            )
            self._engine_used = choice
            return ranked_candidates(
                self._ready, (X_new, y_new), validation, ids=ids, choice=choice, progress=report
            )
