"""The pipeline's stages as Prefect flows: each reads artifacts, calls modelpred, writes artifacts.

Importing this package settles the environment that Prefect, DVC and MLflow read when they are
imported, so it comes before them wherever a stage runs.
"""

from flows import runtime

runtime.settle_environment()
runtime.settle_end()
runtime.prepare_server()
