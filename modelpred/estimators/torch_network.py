"""A torch module that is trained as a whole, as what ModelPred fits: rows of any shape become features.

Training gets [rows, features]; the module of a TorchTarget gives them their shape again (nn.Unflatten).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from modelpred.errors import InvalidInput
from modelpred.estimators.adapted import (
    AdaptedTorch,
    label_column,
    require_label_each,
    weight_column,
)
from modelpred.estimators.preprocessing import Table, column_names, in_order, numbers, plain_table
from modelpred.targets.torch_target import TorchTarget


@dataclass(frozen=True)
class FlatRows:
    """Rows of one shape, as features.

    Attributes:
        shape: of a row.
        columns: names of the columns of a table; None for an array.
    """

    shape: tuple[int, ...]
    columns: tuple[str, ...] | None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features."""
        return self.columns or tuple(f"x{at}" for at in range(self.count))

    @property
    def count(self) -> int:
        """Number of features."""
        return int(np.prod(self.shape))

    def __call__(self, table: Table, *, what: str) -> NDArray[np.float64]:
        """Features [rows, features]; InvalidInput where rows have another shape, or are no numbers."""
        rows = plain_table(table)
        ordered = in_order(rows, self.columns, what=what)
        rows = rows if ordered is None else ordered
        shape = tuple(np.shape(rows)[1:])
        if shape != self.shape:
            raise InvalidInput(
                f"{what} has rows of shape {list(shape)} but the fit had {list(self.shape)}; pass rows "
                "of that shape"
            )
        array = rows if len(shape) == 1 else np.asarray(rows).reshape(len(rows), -1)
        return numbers(array, what=what)


@dataclass(frozen=True)
class WholeModule:
    """A target that is trained as it is.

    Attributes:
        regression: whether labels are numbers.
        sample_weight: factor of each row's loss; None is 1 for all.
    """

    regression: bool
    sample_weight: NDArray[np.float64] | None
    divisor: float = 1.0  # as Mapped


@dataclass(frozen=True)
class AdaptedTarget(AdaptedTorch):
    """A TorchTarget, which is trained as a whole on subsets."""

    preprocessing: FlatRows
    given: TorchTarget
    target: WholeModule

    def __str__(self) -> str:
        """How the module is trained."""
        given = self.given
        how = f"{given.epochs} epochs of {given.optimizer} in batches of {given.batch_size}"
        return f"a torch module of {given.module.size:,} parameters, {how}"


def adapted_target(
    target: TorchTarget,
    table: Table,
    labels: Any,  # noqa: ANN401 - a column of any library
    *,
    sample_weight: Any,  # noqa: ANN401 - a column of any library, or None
    seed: int = 0,  # noqa: ARG001 - as `adapted`; a target has its own
    what: str,
) -> tuple[AdaptedTarget, NDArray[np.float64]]:
    """The target, and the features of the rows.

    Raises:
        InvalidInput: rows that are no numbers, or of different number than labels.
    """
    column = label_column(labels)
    if isinstance(table, torch.Tensor):
        table = table.detach().cpu()
    rows = plain_table(table)
    if len(np.shape(rows)) < 2:
        raise InvalidInput(f"{what} has shape {list(np.shape(rows))}, expected [rows, ...]")
    flat = FlatRows(tuple(np.shape(rows)[1:]), column_names(rows))
    features = flat(rows, what=what)
    require_label_each(column, features, what=what)
    factors = weight_column(sample_weight, rows=len(features))
    return AdaptedTarget(flat, target, WholeModule(target.regression, factors)), features
