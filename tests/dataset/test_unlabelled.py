"""Rows without a label are left out and counted, or refused where they are too many."""

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelpred.dataset import DatasetConfig, prepare, read_dataset, write_dataset
from modelpred.errors import InvalidInput

ROWS = 40
DRAWS = np.random.default_rng(3)
TABLE = pl.DataFrame(
    {
        "id": [f"r{row}" for row in range(ROWS)],
        "x": DRAWS.normal(size=ROWS).round(3),
        "kind": DRAWS.choice(["a", "b"], ROWS),
        "part": ["train"] * 30 + ["test"] * 10,
        "y": ["no", "yes"] * (ROWS // 2),
    }
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    missing=st.sets(st.integers(0, ROWS - 1), min_size=1, max_size=25),
    word=st.sampled_from(["", "NA", "?", "null"]),
)
def test_the_data_set_is_that_of_the_table_without_these_rows(tmp_path, missing, word):
    def config(name):
        return DatasetConfig(source=str(tmp_path / name), label="y", row_id="id", test="part")

    here = pl.int_range(ROWS).is_in(sorted(missing))
    holes = TABLE.with_columns(y=pl.when(here).then(pl.lit(word)).otherwise("y"))
    holes.write_csv(tmp_path / "holes.csv")
    if 2 * len(missing) >= ROWS:
        with pytest.raises(InvalidInput, match=rf"^[^\n]*missing in {len(missing)} rows[^\n]*$"):
            prepare(config("holes.csv"))
        return
    TABLE.filter(~here).write_csv(tmp_path / "whole.csv")
    try:
        expected = prepare(config("whole.csv"))
    except InvalidInput:  # a part or a class has no rows left
        with pytest.raises(InvalidInput):
            prepare(config("holes.csv"))
        return

    found = prepare(config("holes.csv"))

    assert found.row_ids == expected.row_ids
    assert found.test_row_ids == expected.test_row_ids
    assert found.features.equal(expected.features)
    assert found.labels.equal(expected.labels)
    assert found.test_features.equal(expected.test_features)
    assert expected.unlabelled is None
    assert found.unlabelled == len(missing)
    told = f"{len(missing)} row{'s'[: len(missing) > 1]} without a label"
    assert told in found.rows_used
    write_dataset(found, tmp_path / "data")
    assert read_dataset(tmp_path / "data").unlabelled == len(missing)
