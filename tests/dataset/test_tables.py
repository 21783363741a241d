"""The built-in tables are the published ones."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_iris

from modelpred.dataset import known_sources, load_table
from modelpred.dataset.tables import BUILTIN_FOLDER
from modelpred.errors import InvalidInput


def test_spam_is_the_published_table():
    table = load_table("spam")
    assert table.rows.shape == (4601, 1 + 57 + 1)
    assert table.rows["is_spam"].sum() == 1813  # Hopkins et al. 1999: 39.4% spam
    assert "CC BY 4.0" in table.attribution
    assert "CC BY 4.0" in (BUILTIN_FOLDER / "ATTRIBUTION").read_text()


def test_iris_is_its_first_two_classes():
    table = load_table("iris")
    assert table.classes == ("setosa", "versicolor")
    expected = load_iris()
    cells = table.rows.select(table.feature_names).to_numpy()
    np.testing.assert_array_equal(cells, expected.data[expected.target < 2])
    assert table.rows["row_id"].to_list() == [str(row) for row in range(100)]


def test_class_index_is_that_of_the_source():
    table = load_table("breast_cancer")
    named = [table.classes[index] for index in load_breast_cancer().target]
    assert table.rows[table.label].to_list() == named


# mnist trains a network first, and higgs lies elsewhere: they have files of tests of their own.
@pytest.mark.parametrize("source", sorted({*known_sources()} - {"mnist", "higgs"}))
def test_the_customary_split_fits(source: str):
    table = load_table(source)
    assert table.points + table.test <= len(table.rows)
    assert set(table.rows[table.label].cast(str)) == set(table.classes) or not table.classes
    assert table.label not in table.feature_names
    assert "row_id" not in table.feature_names


def test_unknown_table_lists_the_known():
    with pytest.raises(InvalidInput) as error:
        load_table("spma")
    assert str(error.value) == (
        "dataset.source: unknown table 'spma'; "
        "known: spam, iris, breast_cancer, wine, digits, diabetes, mnist, higgs"
    )
