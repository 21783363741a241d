"""The inputs of a report: results of the stages in memory, without file paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl
from jaxtyping import Float64
from pydantic import BaseModel, ConfigDict, Field

from modelpred.dataset import Dataset
from modelpred.dataset.deviation import distances
from modelpred.report.baseline import Baseline
from modelpred.studies.results import StudyResult


class ReportConfig(BaseModel):
    """Section `report` of params.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = Field(default=10, ge=1, le=100)
    """Number of most and of least valuable rows to list."""


@dataclass(frozen=True)
class ReportInputs:
    """Everything that the page shows. `None` and missing studies are no error; the page says so.

    `fidelity` has a row per (method, design) and `history` a row per epoch, as the predictor stage
    writes them. `targets_metrics` and `predictor_metrics` are the stages' metrics.json. `lineage`
    maps any names to texts or numbers, or to mappings of these (versions, fingerprints). `skipped`
    gives the reason for each study that was not run. `baseline` is the model of all rows on the test
    rows.
    """

    params: Mapping[str, object]
    dataset: Dataset
    fidelity: pl.DataFrame | None
    history: pl.DataFrame | None
    studies: Mapping[str, StudyResult]
    targets_metrics: Mapping[str, object]
    predictor_metrics: Mapping[str, object]
    lineage: Mapping[str, object]
    skipped: Mapping[str, str] = field(default_factory=dict[str, str])
    baseline: Baseline | None = None

    @property
    def config(self) -> ReportConfig:
        """The report's own section of the params."""
        return ReportConfig.model_validate(self.section("report"))

    def section(self, name: str) -> Mapping[str, object]:
        """A section of the params; empty if there is none."""
        part = self.params.get(name)
        return part if isinstance(part, Mapping) else {}

    @cached_property
    def positions(self) -> dict[str, int]:
        """Position of each training row by its id."""
        return {row_id: position for position, row_id in enumerate(self.dataset.row_ids)}

    @cached_property
    def deviations(self) -> Float64[np.ndarray, "points columns"]:
        """The deviation of each cell of the training rows from its column (see `distances`)."""
        return distances(self.dataset.rows, self.dataset.column_names)
