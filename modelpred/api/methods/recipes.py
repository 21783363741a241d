"""Effects of rows on models of a TorchTarget, from derivatives through their trainings."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch

from modelpred.api.inputs import ArrayLike
from modelpred.api.methods.state import FitState
from modelpred.errors import InvalidInput
from modelpred.numbers import MOST_DRAWS, Number, whole_number
from modelpred.predictor.recipe_fidelity import halves
from modelpred.progress import progress_bar
from modelpred.refits.training_effects import runs_of, training_effects
from modelpred.targets import TorchTarget


class RecipeMethods(FitState):
    """Methods of ModelPred for a TorchTarget."""

    def training_effects(
        self,
        test: tuple[ArrayLike, ArrayLike] | None = None,
        *,
        runs: Number = 20,
        followed: Number = 5,
        seed: Number = 0,
        with_cells: bool = False,
    ) -> pl.DataFrame:
        """How much each training row lowers the test loss of a TorchTarget, from a few trainings.

        The effect of a row is the mean loss without it minus the mean loss with it, over models of
        random halves of the rows, each with its own seed (the Banzhaf value). It is computed from
        derivatives of the loss through every step of `followed` trainings. A row has a smaller
        residual when it is in the subset; the derivatives are corrected for this with its mean
        residuals over `runs` trainings. The time is about that of runs + 5 followed trainings, one
        after another, for any number of rows.

        Args:
            test: rows with labels; by default the test rows of the fit, or else the training rows.
            runs: number of trainings.
            followed: how many of them are differentiated; the standard error falls with its root.
            seed: of the random halves.
            with_cells: whether to add the original cells of the rows.

        Returns:
            A row per training row, the largest effect first: row_id, label, effect (in the loss of
            the recipe), standard_error (over trainings; the correction's own error is not in it).

        Raises:
            InvalidInput: the model is not a TorchTarget, a setting is out of range, or a training
                does not end finite.
        """
        ready = self._ready
        target, points = ready.problem.model, ready.problem.points
        if not isinstance(target, TorchTarget):
            raise InvalidInput(
                f"training_effects is for a TorchTarget; for {target.title} use values"
            )
        tested = ready.scored_points if test is None else ready.reading.points(*test, what="_test")
        count = whole_number(runs, "runs", least=2, most=MOST_DRAWS)
        differentiated = whole_number(followed, "followed", least=2, most=count)
        draws = np.random.default_rng([whole_number(seed, "seed", least=0), 0])
        subsets = halves(len(points.labels), count, draws)
        with progress_bar(shown=self._settings.progress) as report:
            found = training_effects(
                runs_of(target, points, subsets),
                lambda run, path: run.loss_slopes(path, tested),
                followed=differentiated,
                progress=report,
            )
        if not bool(torch.isfinite(found.mean).all()):
            raise InvalidInput("a training did not end finite; lower the learning rate")
        table = pl.DataFrame(
            {
                "row_id": self.row_ids,
                "label": ready.reading.labels.decode(points.labels),
                "effect": found.mean[0].numpy(),
                "standard_error": found.error[0].numpy(),
            }
        ).sort("effect", descending=True, maintain_order=True)
        return self._with_cells(table, with_cells)
