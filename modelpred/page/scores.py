"""Scores of all rows, computed in the background at the first request, and kept.

    value          Shapley value of the row for the test loss; the higher, the more it helps
    suspicion      minus how sure models without the row are of its label; the higher, the more suspicious
    memorization   by how much its own label is more probable with the row than without

In a project they are read from the studies of its run, if these have run.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, final, get_args

import polars as pl

from modelpred.errors import InvalidInput
from modelpred.page.subject import Subject
from modelpred.sealed import changed_input
from modelpred.studies.labels import DEFAULT_METHOD
from modelpred.studies.results import read_result, study_again
from modelpred.studies.row_gains import has_row_gains
from modelpred.studies.samplers import EXACT_UP_TO

Name = Literal["value", "suspicion", "memorization"]
PERMUTATIONS = 100  # budget of values; of many rows few models give the gains of all
MODELS = 40_000  # trained or predicted for values: a minute at most for small families
MEMORIZATION_CELLS = 20_000_000  # of subsets x rows

log = logging.getLogger(__name__)


@final
class Scores:
    """Scores of all rows; each is computed once."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="scores")
        self._found: dict[str, tuple[float, Future[list[float | None]]]] = {}
        self._ways: dict[str, Callable[[], list[float | None]]] = {
            "value": self._values,
            "suspicion": self._suspicions,
            "memorization": self._memorizations,
        }

    def get(self, name: str) -> dict[str, Any]:
        """The scores in the order of the rows, or for how many seconds they have been computed.

        Raises:
            InvalidInput: there is no such score, or it cannot be computed.
        """
        if name not in get_args(Name):
            raise InvalidInput(f"there is no score {name[:40]!r}; known: {', '.join(self._ways)}")
        if name not in self._found:
            self._found[name] = time.monotonic(), self._worker.submit(self._ways[name])
        began, future = self._found[name]
        if not future.done():
            return {"seconds": round(time.monotonic() - began)}
        error = future.exception()
        if error is not None:
            del self._found[name]
            if isinstance(error, InvalidInput):
                raise error
            log.error("the score %s was not computed", name, exc_info=error)
            raise InvalidInput(f"{name} cannot be computed; the terminal says why")
        return {"scores": future.result()}

    def _values(self) -> list[float | None]:
        rows = len(self._subject.mp.row_ids)
        table = self._study("valuation", "values")
        if table is None:
            mp = self._subject.mp
            permutations = max(2, min(PERMUTATIONS, MODELS // rows // 2 * 2))
            if rows > EXACT_UP_TO and has_row_gains(mp.model, mp.fitted.problem.points, "loss"):
                permutations = PERMUTATIONS
            table = mp.values(permutations=permutations)
        return self._in_order(table, pl.col("value"))

    def _suspicions(self) -> list[float | None]:
        if self._subject.regression:
            raise InvalidInput("labels that are numbers are not scored by suspicion")
        table = self._study("labels", "suspects")
        if table is not None:
            return self._in_order(table, -pl.col(DEFAULT_METHOD))
        return self._in_order(self._subject.mp.suspects().rows, -pl.col("confidence"))

    def _memorizations(self) -> list[float | None]:
        table = self._study("memorization", "rows")
        if table is None:
            rows = len(self._subject.mp.row_ids)
            subsets = max(100, min(1000, MEMORIZATION_CELLS // rows))
            # Only the rows' own scores are shown: influences on all test rows would take gigabytes.
            table = self._subject.mp.memorization(self._subject.first_scored, subsets=subsets).rows
        return self._in_order(table, pl.col("soft"))

    def _study(self, study: str, table: str) -> pl.DataFrame | None:
        """A table of the run's study; None where there is no run, or the study has not run."""
        folder = self._subject.studies
        if folder is None or not (folder / study).is_dir():
            return None
        if changed_input(folder / study, again=study_again(study)) is not None:
            return None  # of an earlier run
        found = read_result(folder / study).tables.get(table)
        same = found is not None and set(found["row_id"]) == set(self._subject.mp.row_ids)
        return found if same else None

    def _in_order(self, table: pl.DataFrame, score: pl.Expr) -> list[float | None]:
        rows = table.select("row_id", score.alias("score"))
        ids = pl.DataFrame({"row_id": list(self._subject.mp.row_ids)})
        joined = ids.join(rows, on="row_id", how="left", maintain_order="left")
        return joined["score"].cast(pl.Float64).fill_nan(None).to_list()


def studies_of(folder: Path) -> Path | None:
    """The folder of a run's studies; None if there is none."""
    studies = folder / "artifacts" / "studies"
    return studies if studies.is_dir() else None
