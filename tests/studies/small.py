"""Every study with settings so small that it takes a second or two on a pool of some dozens of rows."""

from importlib import import_module
from typing import Any

from modelpred.params import Params
from modelpred.studies.context import StudyContext
from modelpred.studies.results import StudyResult

SMALL: dict[str, dict[str, Any]] = {
    "edits": {"step": 10, "repeats": 2, "added": 10, "timings": 1},
    "lds": {"subsets": 10},
    "valuation": {"permutations": 4, "truth_permutations": 4},
    "labels": {"permutations": 4},
    "selection": {"step": 0.2, "permutations": 4, "swaps": 1, "random": 2},
    "memorization": {"subsets": 20},
    "calibration": {"resamples": 10, "tables": 1},
    "attribution": {"explained": 2},
}
"""A study that is not here runs with its defaults."""


def run_small(study: str, context: StudyContext, **settings: Any) -> StudyResult:
    """The result of a study with its small settings, some of them changed."""
    config: Any = Params.model_fields[study].annotation
    given = {**SMALL.get(study, {}), **settings}
    return import_module(f"modelpred.studies.{study}").run(config(**given), context)
