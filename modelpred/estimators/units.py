"""Features in the units of the table's own columns: feature = (column - offset) / divisor.

Scalers keep what a column is and change its unit, so that coefficients can be given for the original
unit. Any other transformer makes columns of its own (an indicator of a level, a product), which count
from there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelpred.estimators.mapping import Estimator
from modelpred.estimators.preprocessing import Preprocessing


@dataclass(frozen=True)
class Unit:
    """A feature as (column - offset) / divisor."""

    name: str
    offset: float = 0.0
    divisor: float = 1.0

    def then(self, offset: float, divisor: float) -> "Unit":
        """The unit after (feature - offset) / divisor."""
        return Unit(self.name, self.offset + offset * self.divisor, self.divisor * divisor)

    @property
    def label(self) -> str:
        """The name, and a remark where the feature is not the column itself."""
        return self.name if (self.offset, self.divisor) == (0, 1) else f"scaled {self.name}"


Units = list[Unit]


def original_units(preprocessing: Preprocessing) -> Units:
    """The unit of each feature of a fitted preprocessing."""
    columns = preprocessing.columns or tuple(f"x{at}" for at in range(preprocessing.count))
    units = [Unit(name) for name in columns]
    if preprocessing.steps is None:
        return units
    found = _after(preprocessing.steps, units)
    if len(found) != len(preprocessing.names):
        return [Unit(name) for name in preprocessing.names]
    return found


def _after(step: Estimator, units: Units) -> Units:
    """The units after a fitted transformer."""
    rule = _RULES.get(type(step).__name__)
    return _made(step, units) if rule is None else rule(step, units)


def _made(step: Estimator, units: Units) -> Units:
    """Columns that the transformer makes."""
    labels = np.array([unit.label for unit in units], dtype=object)
    try:
        return [Unit(str(name)) for name in step.get_feature_names_out(labels)]
    except (AttributeError, ValueError, TypeError, NotImplementedError):
        pass
    try:  # fitted to other names than these
        return [Unit(str(name)) for name in step.get_feature_names_out()]
    except (AttributeError, ValueError, TypeError, NotImplementedError):
        return []


def _pipeline(step: Estimator, units: Units) -> Units:
    for _, each in step.steps:
        if each not in (None, "passthrough"):
            units = _after(each, units)
    return units


def _columns(step: Estimator, units: Units) -> Units:
    """A ColumnTransformer: each transformer's part at its place in the output."""
    placed: dict[int, Unit] = {}
    for name, transformer, columns in step.transformers_:
        at = step.output_indices_[name]
        if transformer == "drop" or at.start == at.stop:
            continue
        own = [units[place] for place in _places(step, columns)]
        found = own if transformer == "passthrough" else _after(transformer, own)
        placed |= dict(zip(range(at.start, at.stop), found, strict=False))
    return [placed[place] for place in sorted(placed)]


def _places(step: Estimator, columns: Any) -> list[int]:  # noqa: ANN401 - as scikit-learn takes them
    """Positions of selected columns: names, positions, a slice or a mask."""
    count = step.n_features_in_
    if isinstance(columns, str | int | np.integer):
        columns = [columns]
    if isinstance(columns, slice):
        names: list[Any] = list(getattr(step, "feature_names_in_", ()))
        if isinstance(columns.start, str) or isinstance(columns.stop, str):
            first = 0 if columns.start is None else names.index(columns.start)
            last = count - 1 if columns.stop is None else names.index(columns.stop)
            return list(range(first, last + 1))
        return list(range(count))[columns]
    chosen = list(columns)
    if chosen and isinstance(chosen[0], bool | np.bool_):
        return [int(at) for at in np.flatnonzero(chosen)]
    if chosen and isinstance(chosen[0], str):
        names = list(step.feature_names_in_)
        return [names.index(name) for name in chosen]
    return [int(at) % count for at in chosen]


def _scaled(units: Units, offsets: Any, divisors: Any) -> Units:  # noqa: ANN401 - arrays or None
    offset = np.zeros(len(units)) if offsets is None else offsets
    divisor = np.ones(len(units)) if divisors is None else divisors
    return [
        unit.then(float(low), float(by))
        for unit, low, by in zip(units, offset, divisor, strict=True)
    ]


def _standard(step: Estimator, units: Units) -> Units:
    return _scaled(units, step.mean_ if step.with_mean else None, step.scale_)


def _min_max(step: Estimator, units: Units) -> Units:
    if step.clip:
        return _made(step, units)
    return _scaled(units, -step.min_ / step.scale_, 1 / step.scale_)


def _robust(step: Estimator, units: Units) -> Units:
    return _scaled(
        units,
        step.center_ if step.with_centering else None,
        step.scale_ if step.with_scaling else None,
    )


def _max_abs(step: Estimator, units: Units) -> Units:
    return _scaled(units, None, step.scale_)


def _imputed(step: Estimator, units: Units) -> Units:
    """Filled cells keep their unit; a column of indicators is one that the step makes."""
    if step.add_indicator or len(_kept(step)) != len(units):
        return _made(step, units)
    return units


def _kept(step: Estimator) -> Sequence[Any]:
    return [value for value in step.statistics_ if value == value]  # noqa: PLR0124 - not nan


_RULES: dict[str, Callable[[Estimator, Units], Units]] = {
    "Pipeline": _pipeline,
    "ColumnTransformer": _columns,
    "StandardScaler": _standard,
    "MinMaxScaler": _min_max,
    "RobustScaler": _robust,
    "MaxAbsScaler": _max_abs,
    "SimpleImputer": _imputed,
}
