"""Figures of the benchmarks: kept line by line, rendered into RESULTS.md, and the README's claims agree with them."""

import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.benchmarks import figures
from tests.benchmarks.__main__ import BENCHMARKS, listing
from tests.benchmarks.claims import CLAIMS, WITHOUT_FIGURE, pages_by_figure
from tests.benchmarks.figures import Figure, line, replace, shown
from tests.benchmarks.results import RESULTS, read_section

ROOT = Path(__file__).parents[1]
LINES = {f"{row['benchmark']}/{row['figure']}": row for row in figures.read()}
# A number with a unit of time, size or share, or a ratio.
MEASURED = re.compile(r"\d[\d,.]*\s?(?:%|µs|us|ms|s|min|MB|GB|times)(?![\w.])")
TIMES = 2.0  # between the times of two runs on machines of the same kind

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
    for key, text in claim.figures.items():
        value, unit = LINES[key]["value"], LINES[key]["unit"]
        number = text.split()[0].rstrip("%")
        claimed, digits = float(number), len(number.partition(".")[2])
        if unit == "relative error":
            assert f"{100 * value:.{digits}f}" == number, key
        elif unit == "MB":
            assert math.isclose(value, claimed, rel_tol=0.05, abs_tol=2), key
        else:
            assert claimed / TIMES <= value <= claimed * TIMES, key


def test_every_measured_number_of_the_readme_is_a_claim():
    rows = [
        row
        for row in re.sub(
            r"```.*?```", "", (ROOT / "README.md").read_text(), flags=re.DOTALL
        ).splitlines()
        if MEASURED.search(row)
    ]
    known = [*(claim.text for claim in CLAIMS), *WITHOUT_FIGURE]
    assert [row for row in rows if not any(text in row for text in known)] == []
    assert [text for text in WITHOUT_FIGURE if not any(text in row for row in rows)] == []


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
