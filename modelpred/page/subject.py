"""A fitted ModelPred for the page: its table, its classes, and the models of edits."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, final

import numpy as np
import polars as pl

from modelpred.api import EditedModel, ModelPred
from modelpred.dataset import Dataset
from modelpred.dataset.cells import column_of, known
from modelpred.engine import require_engine
from modelpred.errors import InvalidInput
from modelpred.page.messages import Added, Edit

REMEMBERED = 8  # models of recent edits
SHOWN_COLUMNS = 40  # of rows whose prediction flips


@final
@dataclass
class Subject:
    """A fitted ModelPred with what the page needs of it.

    Attributes:
        mp: the fit.
        name: what the page is called.
        source: the folder that it was read from; None for one in memory.
        studies: the folder of the run's studies; None if there is none.
        engine: of the models of edits: auto, exact or predicted.
    """

    mp: ModelPred
    name: str
    source: str | None = None
    studies: Path | None = None
    engine: str = "auto"
    _models: "OrderedDict[tuple[str, bool], EditedModel]" = field(
        default_factory=OrderedDict[tuple[str, bool], EditedModel]
    )
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        require_engine(self.engine)

    @property
    def dataset(self) -> Dataset:
        """The rows of the fit."""
        return self.mp.fitted.dataset

    @property
    def regression(self) -> bool:
        """Whether numbers are predicted."""
        return self.mp.model.regression

    @property
    def on(self) -> str:
        """What kind of rows models are scored on: test rows or training rows."""
        return self.mp.fitted.reference.on

    @cached_property
    def rows(self) -> pl.DataFrame:
        """The training rows: row_id, their cells, and the label last."""
        return self.mp.rows

    @cached_property
    def scored_rows(self) -> pl.DataFrame:
        """The rows that models are scored on, in the same form."""
        return self.mp.test_rows if len(self.dataset.test_row_ids) else self.rows

    @property
    def first_scored(self) -> tuple[pl.DataFrame, Any]:
        """The first row that models are scored on, with its label, as ModelPred takes them."""
        dataset = self.dataset
        labels = dataset.test_labels if len(dataset.test_row_ids) else dataset.labels
        first = labels[:1].numpy()
        named = first if self.regression else self.mp.classes[first]
        return self.scored_rows.head(1)[list(self.needed_columns)], named

    @property
    def label_name(self) -> str:
        """Name of the label."""
        return self.rows.columns[-1]

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the table, without the id and the label."""
        return tuple(self.rows.columns[1:-1])

    @cached_property
    def shown_rows(self) -> pl.DataFrame:
        """The rows that models are scored on as the page shows them, without id and label."""
        names = self.columns[:SHOWN_COLUMNS]
        return pl.DataFrame([shown_column(self.scored_rows, name).alias(name) for name in names])

    @cached_property
    def needed_columns(self) -> tuple[str, ...]:
        """Columns that an added row must have: those that the fit used."""
        used = self.dataset.encoding.column_names
        return used if set(used) <= set(self.columns) else self.columns

    @cached_property
    def places(self) -> dict[str, int]:
        """The position of each row that models are scored on, by id."""
        return {row_id: place for place, row_id in enumerate(self.scored_rows["row_id"])}

    def model(self, edit: Edit, *, exact: bool = False) -> EditedModel:
        """The model of an edit, by the engine that costs less or by retraining; recent ones are kept.

        Raises:
            InvalidInput: an edit of another table, or one that names what is not there.
        """
        key = _key(edit, exact=exact)
        with self._lock:
            if key in self._models:
                self._models.move_to_end(key)
                return self._models[key]
        self.require_own(edit)
        added = self.added(edit.added)
        model = self.mp.edit(
            weights=edit.weights,
            labels={row: self.label(label) for row, label in edit.labels.items()},
            added=added,
            engine="exact" if exact else self.engine,
            bounded=False,
        )
        self._remember(key, model)
        return model

    def bounded(self, edit: Edit) -> EditedModel:
        """The predicted model of an edit with its certificate."""
        model = self.model(edit)
        if model.certificate is None:
            model = model.with_certificate()
            self._remember(_key(edit, exact=False), model)
        return model

    def _remember(self, key: tuple[str, bool], model: EditedModel) -> None:
        with self._lock:
            self._models[key] = model
            while len(self._models) > REMEMBERED:
                self._models.popitem(last=False)

    def require_own(self, edit: Edit) -> None:
        """Check that an edit was made for this table; InvalidInput if not."""
        if edit.table != self.dataset.fingerprint:
            raise InvalidInput(
                "this edit was made for another table or another version of it; press Reset"
            )
        if len(edit.weights) > len(self.mp.row_ids) + (len(edit.added.rows) if edit.added else 0):
            raise InvalidInput("the edit names more rows than there are")

    def added(self, added: Added | None) -> tuple[pl.DataFrame, Any] | None:
        """Added rows as a table and its labels; None for none."""
        if added is None or not added.rows:
            return None
        if len(added.labels) != len(added.rows):
            raise InvalidInput(f"{len(added.labels)} labels for {len(added.rows)} added rows")
        labels = np.array([self.label(label) for label in added.labels])
        return self.cells(added), labels

    def cells(self, added: Added) -> pl.DataFrame:
        """Cells that were sent as text, in the types of the table's columns.

        Raises:
            InvalidInput: rows of different lengths, a column named twice, or no number for a number.
        """
        for place, row in enumerate(added.rows):
            if len(row) != len(added.columns):
                raise InvalidInput(
                    f"row {place + 1} has {len(row)} cells for {len(added.columns)} columns"
                )
        if len(set(added.columns)) != len(added.columns):
            raise InvalidInput("a column is named twice; name each once")
        texts = {name: [row[at] for row in added.rows] for at, name in enumerate(added.columns)}
        return pl.DataFrame([self._typed(name, cells) for name, cells in texts.items()])

    def _typed(self, name: str, texts: list[str]) -> pl.Series:
        """Cells in the type of their column; as text where the fit reads texts itself."""
        cells = known(pl.Series("cells", texts, dtype=pl.String))  # polars reads a name such as ^x$
        if name not in self.columns or name in self.dataset.encoding.column_names:
            return cells.alias(name)
        kind = self.rows[name].dtype
        typed = cells.cast(kind, strict=False)
        wrong = typed.is_null() & cells.is_not_null()
        if wrong.any():
            raise InvalidInput(
                f"column {name!r} holds {cells.filter(wrong)[0]!r}, expected {kind} as in the table"
            )
        return typed.alias(name)

    def label(self, label: str) -> Any:  # noqa: ANN401 - of the type of the fit's labels
        """A label as the fit was given it, from its text."""
        if self.regression:
            try:
                return float(label)
            except ValueError:
                raise InvalidInput(f"the label {label!r} is no number") from None
        classes = self.dataset.classes
        if label not in classes:
            shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
            raise InvalidInput(f"{label!r} is no class of the fit; expected one of {shown}")
        return self.mp.classes[classes.index(label)]


def _key(edit: Edit, *, exact: bool) -> tuple[str, bool]:
    return hashlib.sha256(edit.model_dump_json().encode()).hexdigest(), exact


def shown_column(rows: pl.DataFrame, name: str) -> pl.Series:
    """A column for the page: numbers as float64, everything else as text; null where missing."""
    cells = known(column_of(rows, name))
    if cells.dtype.is_numeric():
        return cells.cast(pl.Float64)
    if cells.dtype == pl.Boolean:
        return cells.cast(pl.String)
    if cells.dtype.is_temporal():
        return cells.cast(pl.String).str.strip_suffix(" 00:00:00.000000")
    return cells.cast(pl.String, strict=False)
