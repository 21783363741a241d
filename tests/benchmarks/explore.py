"""The page on the training set, in Chromium: from a click on Remove to the paint of the new numbers, and scrolling.

A click is a real one. Its time runs from the event to the frame after the one that draws the answer: the page removes
one more row each time, so that no answer is known before. Frames are timed while the wheel scrolls through the table.
"""

import shutil
from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl

from modelpred import ModelPred
from modelpred.dataset import DatasetConfig, prepare
from modelpred.page import explore
from tests.benchmarks.figures import Benchmark, Figure, median

CLICKS = 30
COLUMNS = 40
TEST = 1000
# Starts to wait for the next answer; its time is read by AFTER.
BEFORE = """() => {
  let began = 0;
  document.querySelector("#remove").addEventListener("click", (event) => { began = event.timeStamp; }, { once: true, capture: true });
  window.painted = new Promise((done) => {
    const watch = new MutationObserver(() => {
      watch.disconnect();
      requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
    });
    watch.observe(document.documentElement, { attributeFilter: ["data-answers"] });
  });
}"""
AFTER = "() => window.painted"
FRAMES = """() => new Promise((done) => {
  const grid = document.querySelector("#grid");
  const times = [];
  let last = performance.now();
  const step = (now) => {
    times.push(now - last);
    last = now;
    grid.scrollTop += 700;
    if (times.length < 121) requestAnimationFrame(step);
    else done(times.slice(1));
  };
  requestAnimationFrame(step);
})"""


def spam() -> ModelPred:
    """The default table, 300 rows and 57 columns."""
    data = prepare(DatasetConfig(source="spam"))
    names = data.column_names
    return ModelPred("logistic", progress=False).fit(
        data.rows[list(names)],
        data.rows[data.label_name],
        test=(data.test_rows[list(names)], data.test_rows[data.label_name]),
    )


def made(rows: int) -> ModelPred:
    """Normal columns, labels of a logistic model."""
    draws = np.random.default_rng(0)
    cells = draws.normal(size=(rows + TEST, COLUMNS))
    plane = cells @ draws.normal(size=COLUMNS) / 3
    labels = np.where(draws.random(len(cells)) < 1 / (1 + np.exp(-plane)), "yes", "no")
    table = pl.DataFrame(cells, schema=[f"column {at}" for at in range(COLUMNS)])
    return ModelPred("logistic", progress=False).fit(
        table[:rows], labels[:rows], test=(table[rows:], labels[rows:])
    )


def clicks(page: Any, count: int) -> list[float]:
    """Milliseconds from a click on Remove to the paint of the answer, one row after another."""
    times: list[float] = []
    for place in range(count + 1):
        page.locator(f"#row-{place % 12}").click()
        page.evaluate(BEFORE)
        page.click("#remove")
        times.append(page.evaluate(AFTER))
        if place % 12 == 11:
            page.click("#reset")
            page.wait_for_timeout(500)
    return times[1:]  # the first one warms up


def measure(quick: bool) -> Iterable[Figure]:
    """Clicks and frames of three tables."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only this benchmark needs it

    tables = {"300 x 57 (spam)": spam}
    tables |= {f"{rows:,} x {COLUMNS}": lambda rows=rows: made(rows) for rows in (10_000, 50_000)}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name, make in tables.items():
            served = explore(make())
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.goto(served.address)
            page.wait_for_selector("html[data-ready]", timeout=120_000)
            yield median(f"click to paint, {name}", clicks(page, 3 if quick else CLICKS), "ms")
            frames = sorted(page.evaluate(FRAMES))
            late = frames[int(0.95 * len(frames))]
            yield Figure(
                f"frame while scrolling, 95th percentile, {name}", late, "ms", len(frames),
                frames[0], frames[-1],
            )  # fmt: skip
            page.close()
            served.stop()
        browser.close()


BENCHMARK = Benchmark("the page on the training set in a real browser", 2, measure)
