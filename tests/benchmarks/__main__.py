"""Lists and runs the benchmarks whose figures are kept in figures.jsonl.

    python -m tests.benchmarks                   the list: name, minutes, what it measures, claims it supports
    python -m tests.benchmarks spam overhead     runs these and renders RESULTS.md
    python -m tests.benchmarks all --quick       runs all on small inputs, to see that they work; keeps no figure
    python -m tests.benchmarks --render          renders RESULTS.md from figures.jsonl

A figure is one line of JSON, printed as it is measured. The other files of this folder are benchmarks of
their own, which write their sections of RESULTS.md themselves.
"""

import argparse
import json
import sys

from tests.benchmarks import (
    engine,
    engine_choice,
    explore,
    figures,
    group_values,
    growth,
    heads,
    intervals,
    large_studies,
    leave_one_out,
    mixed,
    overhead,
    predicted_values,
    selection,
    sizes,
    softmax_values,
    spam,
    suspects,
    torch_goal,
    torch_targets,
    value_samplers,
    wrong_counts,
)
from tests.benchmarks.claims import CLAIMS, pages_by_figure
from tests.benchmarks.figures import Benchmark
from tests.benchmarks.results import write_section

BENCHMARKS: dict[str, Benchmark] = {
    "engine": engine.BENCHMARK,
    "engine_choice": engine_choice.BENCHMARK,
    "explore": explore.BENCHMARK,
    "group_values": group_values.BENCHMARK,
    "growth": growth.BENCHMARK,
    "heads": heads.BENCHMARK,
    "intervals": intervals.BENCHMARK,
    "large_studies": large_studies.BENCHMARK,
    "leave_one_out": leave_one_out.BENCHMARK,
    "mixed": mixed.BENCHMARK,
    "overhead": overhead.BENCHMARK,
    "predicted_values": predicted_values.BENCHMARK,
    "selection": selection.BENCHMARK,
    "sizes": sizes.BENCHMARK,
    "softmax_values": softmax_values.BENCHMARK,
    "spam": spam.BENCHMARK,
    "suspects": suspects.BENCHMARK,
    "torch_goal": torch_goal.BENCHMARK,
    "torch_targets": torch_targets.BENCHMARK,
    "value_samplers": value_samplers.BENCHMARK,
    "wrong_counts": wrong_counts.BENCHMARK,
}


def listing() -> str:
    """A line for each benchmark, and the claims that it supports."""
    rows: list[str] = []
    width = max(map(len, BENCHMARKS)) + 1
    for name, benchmark in BENCHMARKS.items():
        rows.append(f"{name:<{width}}{benchmark.minutes:>4g} min  {benchmark.about}")
        rows += [
            f"{'':<{width}}{claim.page}: {claim.text}"
            for claim in CLAIMS
            if any(figure.startswith(f"{name}/") for figure in claim.figures)
        ]
    return "\n".join(rows)


def measure(name: str, *, quick: bool) -> None:
    """Run a benchmark, print its figures, and keep them unless it was a quick run."""
    found = list(BENCHMARKS[name].measure(quick))
    told = figures.circumstances()
    lines = [figures.line(name, figure, told) for figure in found]
    for row in lines:
        print(json.dumps(row, ensure_ascii=False), flush=True)
    if not quick:
        figures.replace(name, lines)


def render() -> None:
    """Write the section of each benchmark that has figures."""
    rows = figures.read()
    for name, benchmark in BENCHMARKS.items():
        own = [row for row in rows if row["benchmark"] == name]
        if own:
            write_section(figures.section(name, benchmark.about, own, pages_by_figure(name)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="benchmarks to run; all: every one"
    )
    parser.add_argument("--quick", action="store_true", help="small inputs; nothing is kept")
    parser.add_argument("--render", action="store_true", help="write RESULTS.md from figures.jsonl")
    given = parser.parse_args()
    names = list(BENCHMARKS) if given.names == ["all"] else given.names
    if unknown := [name for name in names if name not in BENCHMARKS]:
        sys.exit(f"unknown benchmark {unknown[0]!r}; known: {', '.join(BENCHMARKS)}, all")
    if not names and not given.render:
        print(listing())
    for name in names:
        measure(name, quick=given.quick)
    if given.render or (names and not given.quick):
        render()


if __name__ == "__main__":
    main()
