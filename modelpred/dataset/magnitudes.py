"""Which numbers can be computed with, and which are so far apart that one hides the others."""

import numpy as np
from jaxtyping import Float64

LARGEST_CELL = 1e150  # squares and their sums stay below 1.8e308
FAR = 1e9  # divisors from which cells are looked at, and the share of one by which cells differ


def are_one(values: Float64[np.ndarray, " rows"], divisor: float) -> bool:
    """Whether that large a divisor makes one number of most of the different values."""
    different = np.unique(values)
    if divisor < FAR or len(different) < 2:
        return False
    apart = int((np.diff(different / divisor) > 1 / FAR).sum())
    return 2 * apart <= len(different) - 1
