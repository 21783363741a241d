"""Figures of the benchmarks: kept line by line, rendered into RESULTS.md, and claims of README and docs agree with them."""

import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.benchmarks import figures
from tests.benchmarks.__main__ import BENCHMARKS, listing
from tests.benchmarks.claim import TIMES, agrees
from tests.benchmarks.claims import CLAIMS, pages_by_figure
from tests.benchmarks.figures import Figure, line, replace, shown
from tests.benchmarks.results import RESULTS, read_section
from tests.benchmarks.without_figure import WITHOUT_FIGURE

ROOT = Path(__file__).parents[1]
LINES = {f"{row['benchmark']}/{row['figure']}": row for row in figures.read()}
# A number with a unit of time, size or share, a ratio, or a decimal such as a correlation or an error.
MEASURED = re.compile(
    r"\d[\d,.]*(?:x|\s?(?:%|µs|us|ms|s|min|MB|GB|times))(?!\w|\.\w)"
    r"|(?<![\w.=])(?:0|[1-9]\d*)?\.\d+(?![\w%-]|\.\w)"
)
CODE = re.compile(r"`[^`]*`")
PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
# The history, and the tables that the pipeline writes.
UNCHECKED = ("docs/changelog.md", "docs/results.md")

NAMES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
FIGURES = st.builds(Figure, NAMES, NUMBERS, NAMES, st.integers(1, 1000), NUMBERS, NUMBERS)
RUNS = st.lists(st.tuples(NAMES, st.lists(FIGURES, max_size=4)), max_size=6)


@settings(max_examples=50, deadline=None)
@given(runs=RUNS)
def test_a_run_replaces_its_own_lines_and_no_others(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("figures") / "figures.jsonl"
    path.touch()
    kept = {}
    for run, (benchmark, measured) in enumerate(runs):
        kept[benchmark] = [line(benchmark, figure, {"run": run}) for figure in measured]
        replace(benchmark, kept[benchmark], path)

    assert figures.read(path) == [row for name in sorted(kept) for row in kept[name]]
    assert len(path.read_text().split("\n")) == sum(map(len, kept.values())) + 1


@settings(max_examples=200, deadline=None)
@given(value=st.floats(1e-6, 1e7))
def test_shown_values_have_three_digits(value):
    number = float(shown(value, "s").replace(",", ""))
    assert math.isclose(number, value, rel_tol=6e-3)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.text)
def test_a_claim_is_in_its_page_and_agrees_with_its_figures(claim):
    lines = (ROOT / claim.page).read_text().splitlines()
    assert sum(claim.text in row for row in lines) == 1
    assert claim.figures
    for key, written in claim.figures.items():
        assert agrees(written, LINES[key]["value"], LINES[key]["unit"]), (key, LINES[key]["value"])


@settings(max_examples=200, deadline=None)
@given(
    value=st.floats(0.001, 1e6),
    digits=st.integers(0, 4),
    off=st.floats(0.6, 5) | st.floats(-5, -0.6),
)
def test_a_stale_number_does_not_agree(value, digits, off):
    written = f"{value:.{digits}f}"
    assert agrees(written, value, "loss")
    assert agrees(f"{100 * value:.{digits}f}%", value, "share")
    assert not agrees(written, float(written) + off * 10.0**-digits, "loss")


@settings(max_examples=100, deadline=None)
@given(value=st.floats(0.1, 1e4), ratio=st.floats(0.05, 20))
def test_times_agree_within_a_factor_in_any_unit(value, ratio):
    assume(not any(math.isclose(ratio, edge, rel_tol=1e-6) for edge in (TIMES, 1 / TIMES)))
    within = 1 / TIMES < ratio < TIMES
    for written in (f"{value * ratio:.9f} s", f"{1e3 * value * ratio:.9f} ms"):
        assert agrees(written, value, "s of processor") == within
        assert agrees(written, 1e6 * value, "us a query") == within


def places(page):
    """The lines of the README, or the paragraphs and tables of another page, without code."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    return text.splitlines() if page == "README.md" else re.split(r"\n\s*\n", text)


@given(
    number=st.integers(1, 10**5).map("{:,}".format) | st.floats(0.01, 99).map("{:.2f}".format),
    words=st.sampled_from(
        ["takes {} ms here", "{} s", "is {}% lower", "is {}x as fast", "{} times", "needs {} GB"]
    ),
)
def test_a_number_with_a_unit_is_measured_and_so_is_a_decimal(number, words):
    assert MEASURED.search(words.format(number))
    assert bool(MEASURED.search(f"a correlation of {number}, at least")) == ("." in number)
    assert bool(MEASURED.search(f"it is {number.removeprefix('0')}.")) == ("." in number)
    assert not MEASURED.search(CODE.sub("", f"with `C={number} s`, 4,000 x 128 and v1.2.3"))


@pytest.mark.parametrize("page", [page for page in PAGES if page not in UNCHECKED])
def test_every_measured_number_is_a_claim_or_is_listed_without_a_figure(page):
    claims = [claim.text for claim in CLAIMS if claim.page == page]
    listed = [text for pages in WITHOUT_FIGURE.values() for text in pages.get(page, ())]
    left = {}  # the lines with measured numbers that are no claims, by place
    for place in places(page):
        rows = [row for row in place.splitlines() if MEASURED.search(CODE.sub("", row))]
        if rows := [row for row in rows if not any(text in row for text in claims)]:
            left[place] = rows
    assert [rows for place, rows in left.items() if not any(text in place for text in listed)] == []
    assert [text for text in listed if sum(text in place for place in left) != 1] == []


def test_pages_without_a_figure_exist():
    assert {page for pages in WITHOUT_FIGURE.values() for page in pages} <= {*PAGES} - {*UNCHECKED}


def test_figures_come_from_listed_benchmarks_with_machine_versions_and_spread():
    keys = {
        "benchmark",
        "figure",
        "value",
        "unit",
        "n",
        "low",
        "high",
        "date",
        "machine",
        "versions",
    }
    assert len(LINES) == len(figures.read())
    for row in LINES.values():
        assert set(row) == keys
        assert row["benchmark"] in BENCHMARKS
        assert row["low"] <= row["value"] <= row["high"]
        assert row["n"] >= 1


@pytest.mark.parametrize("name", sorted({row["benchmark"] for row in LINES.values()}))
def test_results_are_rendered_from_the_figures(name):
    own = [row for row in LINES.values() if row["benchmark"] == name]
    text = figures.section(name, BENCHMARKS[name].about, own, pages_by_figure(name))

    heading, _, body = text.partition("\n")
    assert read_section(heading).rstrip() == f"{heading}\n{body}".rstrip(), (
        "run: python -m tests.benchmarks --render"
    )


def test_the_list_names_every_benchmark_and_the_claims_that_it_supports():
    text = listing()
    assert all(name in text for name in BENCHMARKS)
    assert all(claim.text in text for claim in CLAIMS if claim.figures)
    assert RESULTS.is_file()
    assert json.loads(json.dumps(figures.circumstances()))["machine"]["cores"] >= 1
