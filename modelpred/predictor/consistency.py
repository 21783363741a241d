"""Whether files that are whole, each by itself, belong together: rows, labels, classes and widths.

Hashes find damage and mixed-up files. They are no signatures: whoever can write the files can write their
hashes, too. These checks keep models from being computed on rows of another table without a word.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from modelpred.dataset import Dataset
from modelpred.sealed import refuse
from modelpred.targets import Points, TargetModel


def require_rows(
    folder: Path, points: Points, row_ids: Sequence[str], dataset: Dataset, *, again: str
) -> None:
    """Refuse a predictor that was fitted to other rows, labels or classes than those of the data set.

    Raises:
        InvalidInput: names what differs.
    """
    differs = {
        "row ids": tuple(row_ids) != dataset.row_ids,
        "classes": points.classes != len(dataset.classes),
        "rows": not points.features.equal(dataset.features),
        "labels": not points.labels.equal(dataset.labels),
    }
    if found := next((name for name, wrong in differs.items() if wrong), None):
        raise refuse(folder, f"it was fitted to other {found} than those of dataset/", again=again)


def require_widths(
    folder: Path,
    weights: Tensor,
    parameters: Tensor,
    model: TargetModel,
    points: Points,
    *,
    again: str,
) -> None:
    """Refuse trained subsets of another number of rows or parameters than the family has on the points.

    Raises:
        InvalidInput: names the numbers.
    """
    rows, features = points.features.shape
    expected = (rows, model.parameter_count(features, points.classes))
    found = (weights.shape[1], parameters.shape[1])
    if found != expected:
        why = (
            f"its subsets are of {found[0]:,} rows and its models have {found[1]:,} parameters, but "
            f"{model.name} on dataset/ has {expected[0]:,} and {expected[1]:,}"
        )
        raise refuse(folder, why, again=again)
