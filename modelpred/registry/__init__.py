"""Registered predictors: publish, judge, list, show, promote, roll back. The only package that knows MLflow."""

from modelpred.registry.gates import (
    Calibration,
    Contest,
    Evidence,
    GatesConfig,
    calibration_of,
    compare,
    held_out_errors,
    judge,
)
from modelpred.registry.publishing import Lineage, log_comparison, publish
from modelpred.registry.snapshot import rebuild
from modelpred.registry.store import registered_name, tracking_uri
from modelpred.registry.versions import (
    CHALLENGER,
    CHAMPION,
    Version,
    VersionRecord,
    files_of,
    list_versions,
    promote,
    rollback,
    show_version,
)

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "Calibration",
    "Contest",
    "Evidence",
    "GatesConfig",
    "Lineage",
    "Version",
    "VersionRecord",
    "calibration_of",
    "compare",
    "files_of",
    "held_out_errors",
    "judge",
    "list_versions",
    "log_comparison",
    "promote",
    "publish",
    "rebuild",
    "registered_name",
    "rollback",
    "show_version",
    "tracking_uri",
]
