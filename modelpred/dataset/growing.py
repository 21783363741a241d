"""Continues an earlier version of a table that grew, with the order of its rows, encoding and scaling.

Models trained on subsets of unchanged rows remain valid if the features of these rows do not change.
Therefore a data set that continues another (`dataset.since`) uses its encoding and scaling, even if
the distribution of the new rows differs. Its training rows keep their order, and new rows follow.
`Earlier` records the positions of the rows of each earlier version, for the subsets that were drawn
from them.
"""

import logging
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from modelpred.dataset.cells import column_of, quoted
from modelpred.dataset.config import DatasetConfig
from modelpred.dataset.seeds import seeded_generator
from modelpred.dataset.tables import Table
from modelpred.errors import InvalidInput

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Earlier:
    """The training rows of an earlier version.

    Attributes:
        points: their number.
        places: current position of each; -1 if it was removed or changed.
        labels: the class index of each in that version; empty for a regression.
    """

    points: int
    places: tuple[int, ...]
    labels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Known:
    """The version that a data set continues.

    Attributes:
        row_ids: of the training rows.
        test_row_ids: of the test rows.
        features: of the training rows, scaled.
        labels: of the training rows.
        earlier: the versions before this one.
    """

    row_ids: tuple[str, ...]
    test_row_ids: tuple[str, ...]
    features: Float64[Tensor, "points features"]
    labels: Tensor
    earlier: tuple[Earlier, ...]


def require_continuable(
    table: Table,
    config: DatasetConfig,
    *,
    classes: tuple[str, ...],
    columns: tuple[str, ...],
    known_classes: tuple[str, ...],
) -> None:
    """Check that a table can continue an earlier version with these columns and classes.

    Raises:
        InvalidInput: labels are planted, sizes are exact, a column is missing, or classes differ.
    """
    since = f"dataset.since is {config.since}"
    if config.flip:
        raise InvalidInput(f"{since}, which planted labels do not outlive; set dataset.flip to 0")
    if table.held_out is None or config.points != "auto":
        raise InvalidInput(
            f"{since}: a table that grows is one of your own, with dataset.points auto and "
            "dataset.test auto, a share, a column or a file"
        )
    gone = [name for name in columns if name not in table.rows.columns]
    if gone:
        raise InvalidInput(f"{since}, but the column {gone[0]!r} went since; set it to null")
    for name in table.feature_names:
        if name not in columns:
            log.warning("%s: column %r was no feature then and is none now; left out", since, name)
    if classes != known_classes:
        raise InvalidInput(
            f"{since}, with the classes {', '.join(known_classes)}, but now there are "
            f"{', '.join(classes)}; set it to null"
        )


def grown_split(
    table: Table, known: Known, *, seed: int
) -> tuple[Int64[np.ndarray, " points"], Int64[np.ndarray, " test_points"]]:
    """Row numbers of the training and test rows: first those of the earlier version, in its order."""
    ids = table.rows["row_id"].to_list()
    position = {row_id: at for at, row_id in enumerate(ids)}
    pool = [position[row_id] for row_id in known.row_ids if row_id in position]
    test = [position[row_id] for row_id in known.test_row_ids if row_id in position]
    held_out: Bool[np.ndarray, " rows"] = np.array(table.held_out, dtype=bool)
    held_out[pool], held_out[test] = False, True
    new = np.ones(len(ids), dtype=bool)
    new[pool + test] = False
    for name in table.extra:
        held_out = _with_their_groups(column_of(table.rows, name), held_out, new, name=name)
    generator = seeded_generator(seed, "grown", len(known.earlier))
    return (
        np.concatenate(
            [np.array(pool, dtype=np.int64), generator.permutation(np.flatnonzero(new & ~held_out))]
        ),
        np.concatenate(
            [np.array(test, dtype=np.int64), generator.permutation(np.flatnonzero(new & held_out))]
        ),
    )


def _with_their_groups(
    groups: pl.Series,
    held_out: Bool[np.ndarray, " rows"],
    new: Bool[np.ndarray, " rows"],
    *,
    name: str,
) -> Bool[np.ndarray, " rows"]:
    """Whether each row is a test row, with new rows of a known group on the side of the group.

    Raises:
        InvalidInput: the earlier version has a group on both sides.
    """
    side: dict[str, bool] = {}
    for group, tested in zip(groups.filter(pl.Series(~new)), held_out[~new].tolist(), strict=True):
        if side.setdefault(group, tested) != tested:
            raise InvalidInput(
                f"dataset.since: group {quoted(group)} of {name!r} (dataset.group) has rows to train on and "
                "to test on in that version; set dataset.since to null"
            )
    return np.array([side.get(group, bool(held_out[row])) for row, group in enumerate(groups)])


def earlier_versions(
    known: Known,
    *,
    row_ids: tuple[str, ...],
    features: Float64[Tensor, "points features"],
    labels: Tensor,
) -> tuple[Earlier, ...]:
    """Positions in this version of the training rows of every earlier version."""
    position = {row_id: at for at, row_id in enumerate(row_ids)}
    places: list[int] = []
    for old, row_id in enumerate(known.row_ids):
        now = position.get(row_id, -1)
        same = now >= 0 and bool(
            torch.equal(features[now], known.features[old]) and labels[now] == known.labels[old]
        )
        places.append(now if same else -1)
    # Positions in the last version are mapped to positions in this one.
    moved = [
        replace(each, places=tuple(-1 if at < 0 else places[at] for at in each.places))
        for each in known.earlier
    ]
    classes = () if known.labels.is_floating_point() else tuple(known.labels.tolist())
    return (*moved, Earlier(len(known.row_ids), tuple(places), classes))
