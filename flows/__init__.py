"""The pipeline's stages: each reads artifacts, calls modelpred and writes artifacts.

Importing this package sets the environment variables that Prefect, DVC and MLflow read when they are
imported.
"""

from flows import runtime

runtime.settle_environment()
