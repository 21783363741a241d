"""Attribution matrices of other libraries: the order of their axes, and their sign.

Libraries write [test rows, training rows] (captum, kronfluence, quanda) or [training rows, test
rows] (dattri, TRAK, pyDVL). The shape decides which, unless there are as many test rows as
training rows.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor

from modelpred.errors import InvalidInput

Order = Literal["test-train", "train-test"]


def oriented(
    matrix: Tensor | NDArray[Any], *, tests: int, points: int, order: Order | None, name: str
) -> Tensor:
    """The matrix as [test rows, points].

    Args:
        matrix: in either order.
        tests: number of test rows.
        points: number of training rows.
        order: of the axes; None decides by the shape.
        name: name of the attribution.

    Raises:
        InvalidInput: the shape is neither, or does not decide the order.
    """
    values = torch.as_tensor(matrix)
    shape, expected = list(values.shape), [tests, points]
    if order is None and shape == expected and tests == points:
        raise InvalidInput(
            f"attribution {name!r} is square, so that its shape does not decide the order of its axes; "
            "pass --order test-train (captum, kronfluence, quanda) or train-test (dattri, TRAK, pyDVL)"
        )
    turned = order == "train-test" or (order is None and shape == expected[::-1])
    values = values.T if turned and values.ndim == 2 else values
    if list(values.shape) != expected:
        wanted = expected[::-1] if order == "train-test" else expected
        both = f" or {expected[::-1]}" if order is None else ""
        raise InvalidInput(f"attribution {name!r} has shape {shape}, expected {wanted}{both}")
    return values


def sign_note(row: Mapping[str, Any]) -> str | None:
    """What to say of a row of the table `lds` whose ranks are the other way round; None if not."""
    high = row["high"]
    if high is None or not high < 0:
        return None
    return (
        f"{row['method']}: the sign is the other way round; with -1 times the matrix its LDS is "
        f"{-row['lds']:.3f}. A positive entry must mean that the training row raises the margin of "
        "the test row, not its loss."
    )
