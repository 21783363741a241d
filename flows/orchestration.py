"""Ends the process in one line if Prefect, DVC or MLflow is not installed."""

import sys

from modelpred.extras import EXTRAS, MissingExtra, require

try:
    require(EXTRAS["pipeline"])
except MissingExtra as error:
    sys.exit(f"flows: {error}")
