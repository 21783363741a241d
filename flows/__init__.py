"""The pipeline's stages: each reads artifacts, calls modelpred and writes artifacts.

Importing this package sets the environment variables that Prefect, DVC and MLflow read when they are
imported. The stages and flows.run need only the library; what needs more imports flows.orchestration
first, which ends the process in one line if an extra is missing.
"""

from flows import runtime

runtime.settle_environment()
