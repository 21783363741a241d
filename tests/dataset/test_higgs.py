"""The ATLAS Higgs table is prepared as the published experiments prepared it."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from modelpred.dataset import DatasetConfig, prepare
from modelpred.dataset import higgs as module
from modelpred.dataset.higgs import EVENTS, FEATURES, higgs_table
from modelpred.dataset.openml import Fetched
from modelpred.errors import InvalidInput

ANGLES = ("PRI_tau_phi", "PRI_lep_phi", "PRI_met_phi", "PRI_jet_leading_phi",
          "PRI_jet_subleading_phi")  # fmt: skip
PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "higgs_atlas.parquet"


def challenge(events=1200):
    """A table of the challenge's form, last event first, with missing values."""
    draws = np.random.default_rng(0)
    columns = {name: draws.integers(0, 4, events).astype(float) for name in (*FEATURES, *ANGLES)}
    columns["DER_mass_MMC"][::3] = -999
    return pl.DataFrame(
        {
            "EventId": np.arange(events)[::-1] + 100_000,
            **columns,
            "Weight": np.ones(events),
            "Label": np.where(draws.random(events) < 0.4, "s", "b"),
        }
    )


@pytest.fixture
def file(tmp_path):
    challenge().write_parquet(tmp_path / "atlas.parquet")
    return str(tmp_path / "atlas.parquet")


def test_the_first_events_are_complete_and_without_angles(file):
    table = higgs_table(file)
    first = challenge().sort("EventId").head(EVENTS)
    assert table.rows.shape == (EVENTS, 1 + 25 + 1)
    assert table.rows["Label"].to_list() == first["Label"].to_list()
    mass, given = table.rows["DER_mass_MMC"].to_numpy(), first["DER_mass_MMC"].to_numpy()
    known = given[given != -999]
    values, counts = np.unique(known, return_counts=True)
    usual = values[counts.argmax()]
    np.testing.assert_array_equal(mass, np.where(given == -999, usual, given))
    assert "EventId" not in table.feature_names
    assert "Weight" not in table.feature_names


def test_csv_gives_the_same_table(file, tmp_path):
    path = tmp_path / "atlas.csv"
    challenge().write_csv(path)
    assert higgs_table(str(path)).rows.equals(higgs_table(file).rows)


def test_it_is_a_source_with_a_file(file):
    dataset = prepare(DatasetConfig(source="higgs", file=file))
    assert dataset.features.shape == (300, 25)
    assert dataset.test_features.shape == (500, 25)
    assert dataset.classes == ("b", "s")


def test_without_a_file_it_comes_from_openml(monkeypatch):
    asked = []

    def fetched(table):
        asked.append(table)
        return Fetched("higgs-1", challenge(), "Label", "")

    monkeypatch.setattr(module, "fetch_openml_table", fetched)
    assert higgs_table().rows.height == EVENTS
    assert higgs_table("openml:7").rows.height == EVENTS
    assert asked == ["45549", "7"]


def test_wrong_files_are_refused_by_name(tmp_path):
    with pytest.raises(InvalidInput, match=r"dataset.file: there is no file .*none.csv"):
        higgs_table(str(tmp_path / "none.csv"))
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(InvalidInput, match="has no column 'DER_mass_MMC'; expected the table"):
        higgs_table(str(other))
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    with pytest.raises(InvalidInput, match=r"cut.parquet cannot be read as a table"):
        higgs_table(str(tmp_path / "cut.parquet"))


def test_a_table_that_ships_takes_no_file(file):
    with pytest.raises(InvalidInput, match=r"dataset.file is .*, but the table 'iris' ships"):
        prepare(DatasetConfig(source="iris", file=file))


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="the challenge's table is not here")
def test_the_published_table_has_no_missing_value_left():
    table = higgs_table(str(PUBLISHED))
    cells = table.rows.select(table.feature_names)
    assert cells.width == 25
    assert float(cells.to_numpy().min()) > -999
    assert table.rows["Label"].value_counts().sort("Label")["count"].to_list() == [710, 390]
