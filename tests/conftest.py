"""What every test runs under: no telemetry, no network, nothing outside its temporary folder."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

import tests.type_checks  # noqa: F401 - jaxtyping looks it up by this name

# Set before prefect or mlflow is imported, as flows/ does for the stages.
_PLACE = Path(tempfile.mkdtemp(prefix="modelpred-tests-"))
os.environ.pop("PREFECT_API_URL", None)
os.environ["PREFECT_HOME"] = str(_PLACE / "prefect")
os.environ["MPLCONFIGDIR"] = str(_PLACE / "matplotlib")
os.environ["DO_NOT_TRACK"] = "true"

# A deadline in seconds fails on a busy machine. The examples of a test are the same in every run, so
# that a failure belongs to the change under test; `make test-search` draws other ones each time.
settings.register_profile("search", deadline=None, print_blob=True)
settings.register_profile("tests", deadline=None, derandomize=True)
settings.load_profile("tests")


LONGEST = "test_run_answers_and_a_second_run_changes_nothing"


def pytest_collection_modifyitems(items):
    """Begin with the longest test, so that no worker waits for it at the end."""
    items.sort(key=lambda item: item.name != LONGEST)


@pytest.fixture(scope="session")
def prefect_api():
    """A Prefect server for the flows that tests run in their own process; its API's URL."""
    from prefect.settings import PREFECT_API_URL  # noqa: PLC0415
    from prefect.testing.utilities import prefect_test_harness  # noqa: PLC0415

    with prefect_test_harness(server_startup_timeout=120):
        yield PREFECT_API_URL.value()


def pytest_unconfigure():
    import shutil  # noqa: PLC0415

    shutil.rmtree(_PLACE, ignore_errors=True)
