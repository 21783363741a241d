"""A claim of a page, and whether its numbers agree with the figures that support them."""

import math
import re
from dataclasses import dataclass

TIMES = 2.0  # between the times of two runs on machines of the same kind
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
MEGABYTES = {"MB": 1.0, "GB": 1e3}
NOISY = ("times", "queries")  # ratios of times


@dataclass(frozen=True)
class Claim:
    """A line with measured numbers.

    Attributes:
        page: where it is.
        text: the line, or the part with the numbers.
        figures: `benchmark/figure` -> the number as the line writes it.
    """

    page: str
    text: str
    figures: dict[str, str]


def agrees(written: str, value: float, unit: str) -> bool:
    """Whether a number as a page writes it is that figure.

    Times and their ratios may differ by a factor of `TIMES`, sizes by 5% or 2 MB. Other numbers are the figure,
    rounded to the digits that are written.
    """
    number, written_unit = re.fullmatch(r"([\d,.]+)\s*(\S*).*", written).groups()
    number = number.replace(",", "")
    claimed, digits = float(number), len(number.partition(".")[2])
    unit = (unit.split() or [""])[0]
    if unit in SECONDS:
        ratio = claimed * SECONDS[written_unit or unit] / (value * SECONDS[unit])
        return 1 / TIMES <= ratio <= TIMES
    if unit in NOISY:
        return claimed / TIMES <= value <= claimed * TIMES
    if unit in MEGABYTES:
        claimed *= MEGABYTES[written_unit or unit]
        return math.isclose(value * MEGABYTES[unit], claimed, rel_tol=0.05, abs_tol=2)
    value *= 100 if written_unit == "%" else 1
    return abs(value - claimed) <= 0.5 * 10.0**-digits * (1 + 1e-6)
