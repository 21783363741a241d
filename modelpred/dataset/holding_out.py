"""Selects the test rows of a user's table according to `dataset.test` and `dataset.group`."""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
from jaxtyping import Bool

from modelpred.dataset.cells import WORDS, Unusable, column_of, names_of, quoted
from modelpred.dataset.config import AUTO, DatasetConfig
from modelpred.dataset.splitting import held_out_groups, held_out_rows
from modelpred.errors import InvalidInput

TEST_SHARE = 0.2  # what dataset.test: auto means
TEST_WORDS = {
    **dict.fromkeys(("test", "true", "1"), True),
    **dict.fromkeys(("train", "training", "false", "0"), False),
}


def says_test(cells: pl.Series) -> bool:
    """Whether all cells of a column are the words train and test."""
    if cells.dtype not in WORDS:
        return False
    words = set(cells.cast(pl.String).str.to_lowercase().unique().to_list())
    return "test" in words and words <= set(TEST_WORDS)


def marked_rows(
    cells: pl.Series, *, name: str, source: str, where: Callable[[int], str]
) -> Bool[np.ndarray, " rows"]:
    """Whether a column marks each row as a test row."""
    try:
        words = names_of(cells).str.to_lowercase()
    except Unusable:
        words = pl.Series([None], dtype=pl.String).new_from_index(0, len(cells))
    valid = words.is_in(list(TEST_WORDS)).fill_null(value=False)
    if not valid.all():
        first = valid.to_list().index(False)
        raise InvalidInput(
            f"{source}: column {name!r} (dataset.test) holds {quoted(cells[first])} in "
            f"{where(first)}; expected train and test, true and false, or 1 and 0"
        )
    return words.replace_strict(TEST_WORDS, return_dtype=pl.Boolean).to_numpy()


def test_rows(
    rows: pl.DataFrame, config: DatasetConfig, classes: tuple[str, ...], source: str
) -> Bool[np.ndarray, " rows"] | None:
    """Whether each row is a test row; None if `dataset.test` is a number of rows."""
    if isinstance(config.test, int):
        if config.group:
            raise InvalidInput(
                "dataset.group keeps groups whole, which no exact number of test rows can; set "
                "dataset.test to a share such as 0.2"
            )
        return None
    if isinstance(config.test, str) and config.test != AUTO:
        return marked_rows(
            column_of(rows, config.test), name=config.test, source=source, where="row {}".format
        )
    share = config.test if isinstance(config.test, float) else TEST_SHARE
    if config.group:
        groups = column_of(rows, config.group)
        if groups.n_unique() < 2:
            raise InvalidInput(
                f"{source}: all {len(rows):,} rows are of one group ({config.group!r} is "
                f"{quoted(groups[0])}), so none can be held out whole; name another dataset.group, or none"
            )
        return held_out_groups(groups, share=share, seed=config.seed)
    labels = column_of(rows, str(config.label)).cast(pl.String) if classes else None
    return held_out_rows(labels, rows=len(rows), share=share, seed=config.seed)


def require_whole_groups(
    groups: pl.Series,
    held_out: Bool[np.ndarray, " rows"],
    config: DatasetConfig,
    source: str,
    where: Sequence[str],
) -> None:
    """Raise InvalidInput if the group of a test row that the user named also has training rows."""
    trained = set(groups.filter(pl.Series(~held_out)))
    for row in np.flatnonzero(held_out).tolist():
        if groups[row] in trained:
            raise InvalidInput(
                f"{source}: {where[row]} is for testing (dataset.test: {config.test}), but other rows "
                f"of its group ({config.group}: {quoted(groups[row])}) are trained on; name whole "
                "groups, or leave dataset.group out"
            )
