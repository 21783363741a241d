"""Registered predictors: publish, check, list, show, promote, roll back. The only package that imports MLflow.

Names are loaded when they are used: listing versions does not wait for what judging them needs.
"""

import importlib
from typing import TYPE_CHECKING

from modelpred.extras import require

if TYPE_CHECKING:
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
    from modelpred.registry.publishing import publish
    from modelpred.registry.records import Lineage, log_comparison
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

_HOMES = {
    "gates": (
        "Calibration",
        "Contest",
        "Evidence",
        "GatesConfig",
        "calibration_of",
        "compare",
        "held_out_errors",
        "judge",
    ),
    "publishing": ("publish",),
    "records": ("Lineage", "log_comparison"),
    "snapshot": ("rebuild",),
    "store": ("registered_name", "tracking_uri"),
    "versions": (
        "CHALLENGER",
        "CHAMPION",
        "Version",
        "VersionRecord",
        "files_of",
        "list_versions",
        "promote",
        "rollback",
        "show_version",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOME_OF[name]
    if home != "gates":  # judging needs no MLflow, and params.yaml is read with the gates' config
        require(("mlflow",))
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
