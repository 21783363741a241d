"""What a benchmark of predictions is about."""

from dataclasses import dataclass

from modelpred.targets import Points, TargetModel


@dataclass(frozen=True)
class Problem:
    """A family, training rows, and rows to test on."""

    name: str
    model: TargetModel
    points: Points
    test_points: Points
