"""Chooses C, the weight of the data against the regulariser, by cross-validation on the training rows.

Every training row is held out once, in FOLDS folds that keep the shares of the classes. The C of GRID
with the lowest mean loss of held-out rows is chosen. Large tables are represented by MOST_ROWS rows: C
is that of a prior, which does not depend on the number of rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from modelpred.dataset import Dataset, seeded_generator
from modelpred.dataset.samples import some_rows
from modelpred.progress import tracked
from modelpred.targets import TargetsConfig, dataset_points, points_of, train_targets
from modelpred.targets.scoring import mean_test_losses

GRID = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
FOLDS = 3
MOST_ROWS = 1500


@dataclass(frozen=True)
class Validated:
    """The chosen C, and the mean loss of held-out rows for each C that was tried."""

    C: float
    losses: dict[float, float]


def choose_c(
    dataset: Dataset, config: TargetsConfig, *, grid: Sequence[float] = GRID
) -> Validated | None:
    """The C of the grid with the lowest held-out loss; None if no C has a held-out loss.

    Models that do not converge and folds that lack a class are not counted; a C without any is left out.
    """
    part = some_rows(dataset, min(len(dataset.labels), MOST_ROWS))
    points = dataset_points(part)
    folds = fold_numbers(part)
    weights = torch.stack([torch.from_numpy(folds != fold).double() for fold in range(FOLDS)])
    losses: dict[float, float] = {}
    for value in tracked(grid, "choosing C"):
        model = config.model_copy(update={"C": value}).build(classes=points.classes)
        trained = train_targets(
            model, points.features, points.labels, weights,
            tolerance=config.tolerance, classes=points.classes,
        )  # fmt: skip
        total, rows = 0.0, 0
        for fold in np.flatnonzero(trained.converged.numpy()).tolist():
            held_out = torch.from_numpy(folds == fold)
            tested = points_of(part.features[held_out], part.labels[held_out], points.classes)
            loss = mean_test_losses(model, trained.parameters[fold : fold + 1], tested)
            total, rows = total + float(loss[0]) * len(tested.labels), rows + len(tested.labels)
        if rows:
            losses[value] = total / rows
    return Validated(min(losses, key=lambda value: losses[value]), losses) if losses else None


def fold_numbers(dataset: Dataset) -> np.ndarray:
    """The fold of each row: every class is dealt out in turn, in random order."""
    rows = len(dataset.labels)
    order = seeded_generator(0, "validation").permutation(rows)
    if dataset.classes:
        order = order[np.argsort(dataset.labels.numpy()[order], kind="stable")]
    folds = np.empty(rows, dtype=np.int64)
    folds[order] = np.arange(rows) % FOLDS
    return folds
