"""Pages of small fits, served by threads, and a real browser without a window where there is one."""

import os
import shutil
from importlib.util import find_spec

import numpy as np
import polars as pl
import pytest

from modelpred import ModelPred
from modelpred.page import explore
from tests.api.conftest import SMALL

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ROWS, TEST = 80, 60


def made_table(count, seed):
    """Numbers, categories, gaps and cells that would be markup if they were not escaped."""
    draws = np.random.default_rng(seed)
    size = draws.normal(40, 10, count).round(2)
    work = draws.choice(["office", "<b>field</b>", 'a,"b"'], count)
    age = [None if draws.random() < 0.1 else int(age) for age in draws.integers(18, 80, count)]
    plane = (size - 40) / 10 + (work == "office") + draws.normal(size=count)
    table = pl.DataFrame(
        {"size": size, "work": work, "age": age, "noise": draws.normal(size=count)}
    )
    return table, np.where(plane > 0.5, "rich", "poor")


@pytest.fixture(scope="session")
def mp():
    rows, labels = made_table(ROWS, 0)
    estimator = ModelPred("logistic", subsets=100, predictor=SMALL, progress=False)
    ids = [f"p{row}" for row in range(ROWS)]
    return estimator.fit(rows, labels, ids=ids, test=made_table(TEST, 1))


@pytest.fixture(scope="session")
def served(mp):
    """The address of the page of a small fit."""
    page = explore(mp, name="people")
    yield page.address
    page.stop()


@pytest.fixture(scope="session")
def predicted(mp):
    """The address of a page whose models are predicted."""
    page = explore(mp, name="people", engine="predicted")
    yield page.address
    page.stop()


@pytest.fixture(scope="module")  # Playwright's event loop would be in the way of other modules'
def browser():
    """Chromium, driven by Playwright; skips where one of them is missing."""
    if CHROMIUM is None or find_spec("playwright") is None:
        pytest.skip("no chromium or no playwright: the page is not tried in a browser")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    # Chromium's own sandbox needs user namespaces, which containers and root may lack.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield running
        running.close()
