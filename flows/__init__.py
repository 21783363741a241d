"""The pipeline's stages: each reads artifacts, calls modelpred and writes artifacts.

Importing this package sets the environment variables that Prefect, DVC and MLflow read when they are
imported.
"""

import sys

from modelpred.extras import EXTRAS, MissingExtra, require

try:
    require(EXTRAS["pipeline"])
    from flows import runtime
except MissingExtra as error:
    sys.exit(f"flows: {error}")

runtime.settle_environment()
