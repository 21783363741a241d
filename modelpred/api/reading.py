"""Tables and labels as points: columns by name, scaled with the constants of the fit's rows."""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from torch import Tensor

from modelpred.api.inputs import ArrayLike, Cells, read_cells
from modelpred.api.labels import Labels
from modelpred.dataset import Dataset, InvalidInput
from modelpred.dataset.preparation import Scaling, content_fingerprint
from modelpred.targets import Points, points_of


@dataclass(frozen=True)
class Reading:
    """How a caller's tables become points: column names, scaling, labels.

    Attributes:
        names: the columns of the fit.
        named: whether the table of the fit named them itself.
        scaling: from cells to features, with the constants of the fit's rows.
        labels: how labels are written.
    """

    names: tuple[str, ...]
    named: bool
    scaling: Scaling
    labels: Labels

    def features(self, table: ArrayLike, *, what: str) -> Tensor:
        """Scaled features [rows, features]; columns go by name where both sides name them.

        Raises:
            InvalidInput: other columns than those of the fit.
        """
        if isinstance(table, pl.DataFrame) and self.named:
            missing = [name for name in self.names if name not in table.columns]
            if missing:
                raise InvalidInput(
                    f"{what} has no column {missing[0]!r}; pass the columns of the fit"
                )
            table = table.select(self.names)
        cells = read_cells(table, what=what)
        if cells.values.shape[1] != len(self.names):
            raise InvalidInput(
                f"{what} has {cells.values.shape[1]} columns but the fit had {len(self.names)}; "
                "pass the same columns"
            )
        return self.scaled(cells, what=what)

    def scaled(self, cells: Cells, *, what: str) -> Tensor:
        """Features from cells; InvalidInput where float64 cannot hold them."""
        features = self.scaling(cells.values)
        if not bool(features.isfinite().all()):
            raise InvalidInput(
                f"{what} holds values too large to scale in float64; divide them by a constant"
            )
        return features

    def points(self, table: ArrayLike, labels: ArrayLike, *, what: str) -> Points:
        """Points with their labels; InvalidInput as `features` and `Labels.encode`."""
        features = self.features(table, what=f"X{what}")
        encoded = self.labels.encode(labels, what=f"y{what}", rows=len(features))
        return points_of(features, encoded, len(self.labels.classes))


def dataset_of(
    reading: Reading,
    rows: tuple[Tensor, Tensor, Tensor],
    row_ids: tuple[str, ...],
    *,
    test: tuple[ArrayLike, ArrayLike] | None,
) -> Dataset:
    """The rows as the pipeline's stages take them; `rows` are cells, features and labels."""
    cells, features, labels = rows
    label_name = "label"
    while label_name in reading.names:
        label_name += "_"
    if "row_id" in reading.names:
        raise InvalidInput("X has a column 'row_id'; rename or drop it, and pass it as ids=")
    test_features, test_labels = features[:0], labels[:0]
    if test is not None:
        held_out = reading.points(*test, what="_test")
        test_features, test_labels = held_out.features, held_out.labels
    classes = reading.labels.classes
    named = np.array(classes)[labels.numpy()] if classes else labels.numpy()
    dataset = Dataset(
        name="notebook",
        features=features,
        labels=labels,
        test_features=test_features,
        test_labels=test_labels,
        row_ids=row_ids,
        test_row_ids=tuple(f"test-{row}" for row in range(len(test_labels))),
        feature_names=reading.names,
        classes=classes,
        rows=pl.DataFrame(
            {
                "row_id": pl.Series(row_ids, dtype=pl.String),
                **{name: cells[:, column].numpy() for column, name in enumerate(reading.names)},
                label_name: named,
            }
        ),
        fingerprint="",
        label_name=label_name,
        scaling=reading.scaling,
        attribution="",
    )
    return replace(dataset, fingerprint=content_fingerprint(dataset))
