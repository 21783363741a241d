"""Tables from OpenML (openml.org), by name or number, downloaded at the first use.

scikit-learn downloads a table once and stores it in the cache folder. A name means the oldest active
version; a number is one version.
"""

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from modelpred.errors import InvalidInput
from modelpred.extras import require

PREFIX = "openml:"
CACHE = Path(".modelpred/openml")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fetched:
    """A table as OpenML has it.

    Attributes:
        name: its name there, with the version.
        rows: every column but those that OpenML marks as to be ignored; categories are text.
        label: the column that OpenML names as target; None where it names none, or several.
        attribution: who made it and under which licence, as far as OpenML says.
    """

    name: str
    rows: pl.DataFrame
    label: str | None
    attribution: str


def fetch_openml_table(table: str, *, cache: Path = CACHE) -> Fetched:
    """The OpenML table of that number (`1590`) or name (`adult`), from the cache where it is there.

    Raises:
        InvalidInput: no such table, no connection, or no table of rows and columns; pandas is missing.
    """
    require(("pandas",))  # scikit-learn parses with it
    # Imported where it is used: it takes a second.
    from sklearn.datasets import fetch_openml  # noqa: PLC0415

    which: dict[str, Any] = {"data_id": int(table)} if table.isdecimal() else {"name": table}
    if not table:
        raise InvalidInput(f"dataset.source: {PREFIX} names no table; write {PREFIX}adult")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            bunch: Any = fetch_openml(
                **which, as_frame=True, data_home=str(cache), n_retries=1, delay=0.5
            )
        except OSError as error:  # urllib's errors and time-outs are among them
            raise InvalidInput(_unreachable(table, cache, error)) from error
        except (ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise InvalidInput(f"{PREFIX}{table} cannot be used: {reason}") from error
    for warning in caught:
        if "network error" not in str(warning.message):
            log.warning("%s%s: %s", PREFIX, table, " ".join(str(warning.message).split()))
    rows = pl.from_pandas(bunch.frame)
    targets = list(bunch.target_names)
    return Fetched(
        name=f"{bunch.details['name']}-{bunch.details['version']}",
        rows=rows.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String)),
        label=targets[0] if len(targets) == 1 else None,
        attribution=_attribution(bunch.details, bunch.url),
    )


def _unreachable(table: str, cache: Path, error: OSError) -> str:
    code = getattr(error, "code", None)
    if code == 404:
        return f"{PREFIX}{table}: OpenML has no such table; look it up on openml.org"
    return (
        f"{PREFIX}{table}: OpenML cannot be reached ({getattr(error, 'reason', error)}) and the "
        f"table is not in {cache}; connect once, or name a file as dataset.source"
    )


def _attribution(details: dict[str, Any], url: str) -> str:
    creators = details.get("creator", ())
    names = [creators] if isinstance(creators, str) else list(creators)
    parts = [f"{details['name']}, version {details['version']}", ", ".join(names)]
    parts += [f"OpenML, {url}", details.get("licence", "")]
    return ". ".join(part for part in parts if part)
