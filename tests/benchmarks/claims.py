"""Numbers that README.md and the pages of docs/ claim, and the figures that support them.

A test checks that each claim is in its page word for word and agrees with its figures, and that no other line has a
measured number, unless without_figure.py lists it.
"""

from tests.benchmarks.claim import Claim
from tests.benchmarks.claims_of_docs import DOCS_CLAIMS

README = "README.md"
# The columns of the README's table, and the method of each of its rows.
COLUMNS = ("uniform", "deletion", "edits_addition", "time")
ROWS = {
    "| **ModelPred** | 2.1% | 0.92% | 6.4% | 14 µs |": "predictor",
    "| **ModelPred, stopped early** (`stages=2`) | 16% | 10% | 18% | 4.5 µs |": "predictor_stage_2",
    "| **ModelPred, refined by one Newton step** | 0.28% | 0.07% | 0.76% | 27 µs |": (
        "predictor_refine_1"
    ),
    "| one Newton step from the model of all rows | 17% | 10% | 43% | 17 µs |": "newton_step",
    "| linear datamodel | 28% | 20% | 31% | 0.6 µs |": "linear_datamodel",
    "| influence function | 42% | 26% | 111% | 0.7 µs |": "influence",
    "| exact retraining, in C | 0 | 0 | 0 | 47 µs |": "retraining",
}


def _row(text: str, method: str) -> Claim:
    """A row of the README's table."""
    cells = text.strip("| ").split(" | ")[1:]
    figures = zip(COLUMNS, cells, strict=True)
    return Claim(README, text, {f"spam/{method}, {column}": cell for column, cell in figures})


CLAIMS = (
    *DOCS_CLAIMS,
    *(_row(text, method) for text, method in ROWS.items()),
    Claim(
        README,
        "half of the size is PyTorch for the CPU | 1.7 GB |",
        {"sizes/the library": "1685 MB"},
    ),
    Claim(
        README,
        "Prefect and MLflow | + 0.5 GB |",
        {"sizes/openml": "87 MB", "sizes/page": "8 MB", "sizes/pipeline": "368 MB"},
    ),
    Claim(README, "`modelpred serve` (needs `pipeline`, too) | + 8 MB |", {"sizes/page": "8 MB"}),
    Claim(README, "included in `pipeline` | + 87 MB |", {"sizes/openml": "87 MB"}),
    Claim(README, "| + 34 MB, + 290 MB |", {"sizes/dask": "34 MB", "sizes/ray": "290 MB"}),
    Claim(README, "| trained models stored on S3 | + 46 MB |", {"sizes/s3": "46 MB"}),
)


def pages_by_figure(benchmark: str) -> dict[str, list[str]]:
    """The pages that claim a figure of the benchmark, by the figure's name."""
    pages: dict[str, list[str]] = {}
    for claim in CLAIMS:
        for key in claim.figures:
            name, _, figure = key.partition("/")
            if name == benchmark and claim.page not in pages.setdefault(figure, []):
                pages[figure].append(claim.page)
    return pages
