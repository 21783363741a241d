"""The rows that `suspects` and `values` use: read, limited to what ends within the minutes, and fitted."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelpred.errors import InvalidInput
from modelpred.table_commands import Terminal

if TYPE_CHECKING:
    from modelpred.api import ModelPred
    from modelpred.check.project import Options
    from modelpred.dataset import Dataset


@dataclass(frozen=True)
class Ready:
    """The fit of the rows that a command uses, their data set, and the random orders of values."""

    fitted: "ModelPred"
    dataset: "Dataset"
    orders: int


def fit_rows(
    options: "Options",
    talk: Terminal,
    *,
    every_row: bool,
    groups: str | None = None,
    orders: int | None = None,
) -> Ready:
    """What a command needs: the fit of the table's training rows, or of all rows.

    Raises:
        InvalidInput: the table or an option cannot be used.
    """
    began = time.monotonic()
    with talk.bar(f"reading {options.source}"):
        from modelpred.api import ModelPred  # noqa: PLC0415
        from modelpred.check import decisions_text  # noqa: PLC0415
        from modelpred.check.decisions import Decision  # noqa: PLC0415
        from modelpred.check.project import inspect, with_share, with_strength  # noqa: PLC0415
        from modelpred.check.row_plan import plan_rows  # noqa: PLC0415
        from modelpred.dataset import prepare_table  # noqa: PLC0415

        checked = inspect(options)
        dataset = prepare_table(checked.table, checked.config)
    # A column that cannot be used is refused before anything is trained.
    players = None if groups is None else len(set(groups_of(dataset, groups)))
    with talk.bar("choosing C") as report:
        targets, strength = with_strength(dataset, options, checked)
        plan = plan_rows(
            dataset,
            targets,
            minutes=options.minutes,
            began=began,
            groups=players,
            orders=orders,
            every_row=every_row,
            fixed_rows=options.max_points is not None,
            progress=report,
        )
    if plan.share < 1:
        with talk.bar(f"reading {options.source}"):
            checked = with_share(checked, options, plan.share)
            dataset = prepare_table(checked.table, checked.config)
    model = targets.build(classes=len(dataset.classes))
    decisions = [
        Decision("model", f"{model.name}{strength}", "--model, --C"),
        *(each for each in checked.decisions if not (every_row and each.about == "test rows")),
        Decision("time", plan.words(orders=not every_row), "--minutes"),
    ]
    talk.say(f"{checked.head}\n\n{decisions_text(decisions)}\n")
    settings = {name: value for name, value in model.settings.items() if name != "seed"}
    mp = ModelPred(target=model.name, scaling="none", progress=not talk.quiet, **settings)
    return Ready(_fit(mp, dataset, every_row=every_row), dataset, plan.orders)


def _fit(mp: "ModelPred", dataset: "Dataset", *, every_row: bool) -> "ModelPred":
    """The fit of the training rows, or of all rows."""
    import torch  # noqa: PLC0415

    features, labels, ids = dataset.features, dataset.labels, dataset.row_ids
    if every_row:
        features = torch.cat([features, dataset.test_features])
        labels = torch.cat([labels, dataset.test_labels])
        ids = (*ids, *dataset.test_row_ids)
    return mp.fit(features.numpy(), labels_of(dataset, labels), ids=ids)


def labels_of(dataset: "Dataset", labels: Any) -> Any:  # noqa: ANN401 - a tensor; an array of names or numbers
    """The labels as the table has them: names of classes, or numbers."""
    import numpy as np  # noqa: PLC0415

    return np.array(dataset.classes)[labels.numpy()] if dataset.classes else labels.numpy()


def shown_columns(dataset: "Dataset") -> list[str]:
    """The columns of the rows without ids and label."""
    return [name for name in dataset.rows.columns if name not in ("row_id", dataset.label_name)]


def groups_of(dataset: "Dataset", column: str) -> Sequence[str]:
    """The group of each training row.

    Raises:
        InvalidInput: there is no such column, or a cell is missing.
    """
    from modelpred.dataset.cells import column_of  # noqa: PLC0415

    known = shown_columns(dataset)
    if column not in known:
        raise InvalidInput(f"--groups: there is no column {column!r}; known: {', '.join(known)}")
    import polars as pl  # noqa: PLC0415

    cells = column_of(dataset.rows, column).cast(pl.String)
    if cells.null_count():
        raise InvalidInput(
            f"--groups: {cells.null_count():,} cells of {column!r} are empty; fill them"
        )
    return cells.to_list()
