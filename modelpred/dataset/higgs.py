"""The table of the ATLAS Higgs challenge of 2014, prepared as in the published experiments.

It has the first 1,100 events by number. Missing values (-999) are replaced by the most frequent value
of the column, and the five angles `*_phi` are dropped. This gives 25 features and the label s (signal)
or b (background). Split and scaling are those of the other tables.

The table is not included. `dataset.file` is a CSV or Parquet file with the columns of the challenge
(record 328 of CERN's open data portal), or `openml:` with a number; by default OpenML's.
"""

from pathlib import Path

import polars as pl

from modelpred.dataset.openml import PREFIX, fetch_openml_table
from modelpred.dataset.tables import Table
from modelpred.errors import InvalidInput

SOURCE = "higgs"
OPENML = f"{PREFIX}45549"
EVENTS = 1100
MISSING = -999.0
LABEL, CLASSES = "Label", ("b", "s")
FEATURES = (
    "DER_mass_MMC", "DER_mass_transverse_met_lep", "DER_mass_vis", "DER_pt_h",
    "DER_deltaeta_jet_jet", "DER_mass_jet_jet", "DER_prodeta_jet_jet", "DER_deltar_tau_lep",
    "DER_pt_tot", "DER_sum_pt", "DER_pt_ratio_lep_tau", "DER_met_phi_centrality",
    "DER_lep_eta_centrality", "PRI_tau_pt", "PRI_tau_eta", "PRI_lep_pt", "PRI_lep_eta", "PRI_met",
    "PRI_met_sumet", "PRI_jet_num", "PRI_jet_leading_pt", "PRI_jet_leading_eta",
    "PRI_jet_subleading_pt", "PRI_jet_subleading_eta", "PRI_jet_all_pt",
)  # fmt: skip


def higgs_table(file: str | None = None) -> Table:
    """The first events of the challenge, with missing values replaced and without angles.

    Args:
        file: a path to CSV or Parquet, or `openml:` with a number or name; by default OpenML's.

    Raises:
        InvalidInput: there is no such file, or it lacks columns of the challenge.
    """
    named = file or OPENML
    rows = _read(named)
    absent = [name for name in (*FEATURES, LABEL) if name not in rows.columns]
    if absent:
        raise InvalidInput(
            f"dataset.file: {named} has no column {absent[0]!r}; expected the table of the ATLAS "
            "Higgs challenge of 2014 (CERN open data, record 328)"
        )
    if "EventId" in rows.columns:
        rows = rows.sort("EventId")
    rows = rows.head(EVENTS).with_row_index("row_id")
    return Table(
        name=SOURCE,
        rows=rows.select(
            pl.col("row_id").cast(pl.String), *map(_complete, FEATURES), pl.col(LABEL)
        ),
        label=LABEL,
        classes=CLASSES,
        points=300,
        test=500,
        attribution=(
            "ATLAS Higgs machine learning challenge 2014, the first "
            f"{EVENTS:,} events. ATLAS collaboration, CERN Open Data Portal, "
            "https://doi.org/10.7483/OPENDATA.ATLAS.ZBP2.M5T8"
        ),
    )


def _complete(name: str) -> pl.Expr:
    """The column with missing values replaced by the most frequent value (the smallest of several)."""
    column = pl.col(name).cast(pl.Float64)
    known = pl.when(column == MISSING).then(None).otherwise(column)
    usual = known.drop_nulls().mode().min()
    return known.fill_null(usual).alias(name)


def _read(named: str) -> pl.DataFrame:
    if named.startswith(PREFIX):
        return fetch_openml_table(named.removeprefix(PREFIX)).rows
    path = Path(named)
    if not path.is_file():
        raise InvalidInput(f"dataset.file: there is no file {named}")
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path, glob=False)
        return pl.read_csv(path, infer_schema_length=None, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInput(f"dataset.file: {named} cannot be read as a table: {reason}") from error
