"""Encodes labels of any type as class indices or numbers, and decodes them to names of their type."""

import math
from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelpred.api.frames import is_column, is_frame, polars_column
from modelpred.api.inputs import ArrayLike, array_of
from modelpred.dataset.cells import first_no_text, is_missing, known
from modelpred.dataset.label_column import FEW_NUMBERS
from modelpred.dataset.labels import require_usable_labels
from modelpred.dataset.splitting import MOST_CLASSES
from modelpred.errors import InvalidInput
from modelpred.numbers import plain

LabelKind = Literal["boolean", "integer", "number", "text"]


@dataclass(frozen=True)
class Labels:
    """The label encoding: classes in the order of their index, or numbers.

    Attributes:
        kind: the type of the caller's labels.
        classes: names of the classes as text; empty for a regression.
    """

    kind: LabelKind
    classes: tuple[str, ...]

    @property
    def names(self) -> NDArray[Any]:
        """The classes in the caller's type, [classes]."""
        match self.kind:
            case "boolean":
                return np.array([name == "True" for name in self.classes])
            case "integer":
                return np.array([int(name) for name in self.classes])
            case "number":
                return np.array([float(name) for name in self.classes])
            case "text":
                return np.array(self.classes)

    def decode(self, encoded: NDArray[Any] | Tensor) -> NDArray[Any]:
        """Labels in the caller's type from class indices, or the numbers themselves, [rows]."""
        numbers = np.asarray(encoded)
        return self.names[numbers] if self.classes else numbers

    def encode(self, labels: ArrayLike, *, what: str, rows: int) -> Tensor:
        """Class indices (int64) or numbers (float64), [rows].

        Raises:
            InvalidInput: the number of labels is not that of the rows, a label is missing, or a class
                was not in the fit.
        """
        array, kind = _label_array(labels, what=what)
        if len(array) != rows:
            raise InvalidInput(f"{what} has {len(array)} labels for {rows} rows; pass one a row")
        if not self.classes:
            return torch.from_numpy(_numbers(array, kind, what=what))
        texts = _texts(array, kind, like=self.kind)
        index = {name: position for position, name in enumerate(self.classes)}
        unknown = sorted({text for text in texts if text not in index})
        if unknown:
            raise InvalidInput(
                f"{what} holds {unknown[0]!r}, expected one of the classes of the fit: "
                f"{', '.join(self.classes)}"
            )
        return torch.tensor([index[text] for text in texts], dtype=torch.int64)


def learn_labels(labels: ArrayLike, *, what: str, regression: bool | None) -> Labels:
    """Return the encoding of these labels.

    Args:
        labels: [rows], of any type.
        what: name of the argument in messages.
        regression: whether to predict numbers; None: if the labels are floating-point numbers or more
            than 20 different whole numbers.

    Raises:
        InvalidInput: labels are missing or of several types, or there are fewer than two classes.
    """
    array, kind = _label_array(labels, what=what)
    many = kind == "integer" and len(np.unique(array)) > FEW_NUMBERS
    if regression or (regression is None and (many or kind == "number")):
        _numbers(array, kind, what=what)
        return Labels("number", ())
    if kind == "number" and not np.equal(array, np.round(array)).all():
        raise InvalidInput(f"{what} holds real numbers, expected classes; use target='ridge'")
    classes = _texts(np.unique(array), kind, like=kind)
    different = len(classes) == len(array) > FEW_NUMBERS
    if kind == "text" and (len(classes) > MOST_CLASSES or different):
        raise InvalidInput(
            f"{what} has {len(classes)} classes in {len(array)} rows, expected {MOST_CLASSES} at most, and "
            "more rows than classes; pass other labels"
        )
    if len(classes) < 2:
        raise InvalidInput(
            f"{what} holds one class ({classes[0]!r}) in all {len(array)} rows; "
            "a classifier needs at least two"
        )
    return Labels(kind, tuple(classes))


def _label_array(labels: ArrayLike, *, what: str) -> tuple[NDArray[Any], LabelKind]:
    """Labels [rows] of one type, checked for missing ones."""
    if is_frame(labels):
        raise InvalidInput(f"{what} is a table, expected one column; pass a series")
    if is_column(labels):
        cells = polars_column(labels, what=what)
        named = known(cells)
        # Whole numbers beyond 2^53 are names in a table, and numbers as labels.
        labels = (
            cells if cells.dtype.is_numeric() and named.dtype == pl.String else named
        ).to_list()
    if isinstance(labels, np.ma.MaskedArray):
        labels = labels.tolist()  # None where masked
    if isinstance(labels, (list, tuple)):  # numpy would turn [1, "a"] into texts
        labels = np.array(labels, dtype=object)
    array = array_of(labels)
    if array.ndim != 1 or not len(array):
        raise InvalidInput(f"{what} has shape {list(array.shape)}, expected one label a row")
    listed = array.tolist()
    missing = sum(is_missing(label) or label in (math.inf, -math.inf) for label in listed)
    if missing:
        raise InvalidInput(f"{what} has {missing} missing or not finite labels; fill or remove")
    kind = _common_kind({_kind(label) for label in listed}, what=what)
    if kind == "text":
        return _text_array(listed, what=what), kind
    types = {"boolean": np.bool_, "integer": None, "number": np.float64}
    return np.array(
        [plain(label) if kind != "boolean" else label for label in listed], types[kind]
    ), kind


def _text_array(listed: list[object], *, what: str) -> NDArray[Any]:
    texts = [str(label).strip() for label in listed]
    if (at := first_no_text(texts)) is not None:
        raise InvalidInput(f"{what} holds {texts[at]!r} in row {at}, which is no text of Unicode")
    return np.array(texts)


def _common_kind(kinds: set[LabelKind], *, what: str) -> LabelKind:
    """The common type of labels of these types."""
    if kinds == {"integer", "number"}:
        return "number"
    if len(kinds) > 1:
        raise InvalidInput(
            f"{what} mixes {' and '.join(sorted(kinds))} labels; give all of them one type"
        )
    return kinds.pop()


def _kind(label: object) -> LabelKind:
    """The type of a label."""
    if isinstance(label, (bool, np.bool_)):
        return "boolean"
    whole = isinstance(label, Decimal) and not label.as_tuple().exponent
    if isinstance(label, Integral) or whole:
        return "integer"
    return "text" if plain(label) is None else "number"


def _texts(array: NDArray[Any], kind: LabelKind, *, like: LabelKind) -> list[str]:
    """The labels as text in the form of a class of kind `like`: 1.0 and True are the integer 1."""
    if {kind, like} <= {"integer", "number", "boolean"} and kind != like:
        exact = {"integer": np.int64, "number": np.float64, "boolean": np.bool_}[like]
        converted = array.astype(exact)
        if np.equal(converted, array).all():
            array = converted
    return [str(label) for label in array.tolist()]


def _numbers(array: NDArray[Any], kind: LabelKind, *, what: str) -> NDArray[np.float64]:
    if kind in {"text", "boolean"}:
        raise InvalidInput(f"{what} holds {kind} labels, expected numbers to predict")
    numbers = array.astype(np.float64)
    require_usable_labels(numbers, what=what)
    return numbers
