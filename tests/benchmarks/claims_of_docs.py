"""Numbers that the pages of docs/ claim, and the figures that support them."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.benchmarks.claim import Claim

ROOT = Path(__file__).parents[2]
# A number of a table cell, with its unit.
NUMBER = re.compile(r"(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:%|x| us| ms| s| GB)?(?![\w.])")
# The figures of a cell, in the order of its numbers.
Cell = str | tuple[str, ...]


def _table(page: str, first: str, rows: Sequence[Sequence[Cell]]) -> Iterator[Claim]:
    """A claim for each row: the last cells of rows that follow each other, from the one that starts with `first`."""
    lines = (ROOT / page).read_text().splitlines()
    [start] = [number for number, line in enumerate(lines) if line.startswith(first)]
    for line, names in zip(lines[start : start + len(rows)], rows, strict=True):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")][-len(names) :]
        figures: dict[str, str] = {}
        for cell, own in zip(cells, names, strict=True):
            keys = (own,) if isinstance(own, str) else own
            if any(keys):
                figures |= dict(zip(keys, NUMBER.findall(cell), strict=True))
        yield Claim(page, line, figures)


def _engine() -> Iterator[Claim]:
    pools = [
        *(("logistic", rows) for rows in (300, 1000, 3000, 10000)),
        *(("softmax", rows) for rows in (1000, 3000)),
    ]
    columns = ("targets", "error", "preparation", "retraining", "answer")
    yield from _table(
        "docs/engine.md",
        "| logistic, 300 rows | 0 ",
        [
            [
                *(f"engine/{family} {rows} x 40, {column}" for column in columns),
                f"engine/{family} {rows} x 40, break-even",
            ]
            for family, rows in pools
        ],
    )
    yield from _table(
        "docs/engine.md",
        "| over 1 s (",
        [
            [f"engine_choice/auto {what}, {which}" for which in ("mean", "most")]
            for what in (
                "/ better where that takes over 1 s",
                "less better where that takes up to 1 s",
            )
        ],
    )
    yield from _table(
        "docs/engine.md",
        "| 300 | ",
        [
            *(
                [f"predicted_values/logistic {rows} x 40: {what}" for what in ("auto", "trial")]
                for rows in ("300", "1,000")
            ),
            ["predicted_values/logistic 10,000 x 40: auto", ""],
        ],
    )
    yield from _table(
        "docs/engine.md",
        "| logistic, 300 rows | 1.00",
        [
            [
                f"mixed/{pool}, subsets of {share}: variance at equal time"
                for share in ("3%", "10%", "40%", "80%")
            ]
            for pool in (
                "logistic 300 x 40",
                "logistic 1,000 x 40",
                "logistic 3,000 x 40",
                "MNIST 4,000 x 128, C 0.01",
            )
        ],
    )


def _heads() -> Iterator[Claim]:
    # The stages that each column shows, and where subsets stop by their own estimated error.
    own = "accuracy 1%"
    pools: dict[str, tuple[tuple[int | str, ...], ...]] = {
        "MNIST 4,000 x 128, C 0.01": ((0, 1, 2), (0, 1, own, 2), (0, 1)),
        "MNIST 10,000 x 128, C 0.01": ((0, 1), (0, 1), (0, 1)),
        "MNIST 4,000 x 128, C 0.3": ((0, 1, 4, 8), (0, 1, 3, 8), (0, 1, 2)),
        "logistic 10,000 x 40, C 1": ((0, 1), (0, 1), (0,)),
        "adult, 20,000 rows": ((0, 1), (0, 1), (0, 1)),
        "svm 10,000 x 40, C 1": ((0, 1), (0, 1), (0,)),
        "embeddings 10,000 x 512, 50 classes, C 0.01": ((0, 1, 2), (0, 1, 3), (0, 1)),
    }
    kinds = ("halves", "uniform", "deletions")

    def cell(pool: str, kind: str, stages: tuple[int | str, ...]) -> tuple[str, ...]:
        ways = [way if isinstance(way, str) else f"stage {way}" for way in stages]
        keys = [f"heads/{pool}, {kind}, {way}" for way in ways]
        return tuple(name for key in keys for name in (f"{key}: retraining / prediction", key))

    yield from _table(
        "docs/predictor.md",
        "| softmax head, MNIST features, 4,000 x 128, C = .01 | ",
        [
            [
                *(cell(pool, kind, shown) for kind, shown in zip(kinds, stages, strict=True)),
                f"heads/{pool}, halves: break-even",
            ]
            for pool, stages in pools.items()
        ],
    )


def _suspects() -> Iterator[Claim]:
    rows: list[list[Cell]] = []
    for flipped, planted in (
        ("5% of all", "1,000"),
        ("10% of all", "2,000"),
        ("10% of each label", "948"),
    ):
        for method in ("suspects", "suspects with a forest", "cleanlab's best score"):
            key = f"suspects/{flipped}: {method}"
            time = key.replace("best score", "scores")
            number = (
                f"{key}, estimated number ({planted} planted)",
                f"{key}, estimated number, low ({planted} planted)",
                f"{key}, estimated number, high ({planted} planted)",
            )
            labels = tuple(f"{key}, AUROC among labels {label}" for label in (0, 1))
            rows.append(
                [
                    f"{key}, AUROC",
                    f"{key}, precision",
                    labels,
                    f"{time}, time",
                    number if method == "suspects" else "",
                ]
            )
    key = "suspects/none: suspects, estimated number"
    rows.append([(f"{key} (0 planted)", f"{key}, low (0 planted)", f"{key}, high (0 planted)")])
    yield from _table("docs/values.md", "| 5% of all rows (1,000) | suspects", rows)


def _wrong_counts() -> Iterator[Claim]:
    rows: list[list[Cell]] = []
    for table in (
        "spam",
        "higgs",
        "adult",
        "digits",
        "simulated, logistic",
        "simulated, 4 classes",
    ):
        rows.append([])
        for forest in ("", ", with a forest"):
            for share, planted in (
                (0, 0),
                (5, 90 if table == "digits" else 150),
                (10, 180 if table == "digits" else 300),
            ):
                key = f"wrong_counts/{table}, {share}%{forest}"
                rows[-1].append(
                    (
                        f"{key}: estimated number ({planted} planted)",
                        f"{key}: intervals that hold it",
                    )
                )
    yield from _table("docs/values.md", "| spam | 11 (0)", rows)
    rare: list[list[Cell]] = [
        [
            f"wrong_counts/rare class, {kind}: rare label among the first 200",
            f"wrong_counts/rare class, {kind}: wrong labels among the first 200",
            f"wrong_counts/rare class, {kind}: estimated number ({planted} planted)",
        ]
        for kind, planted in (("none", 0), ("5% of all", 300), ("10% of each label", 44))
    ]
    yield from _table("docs/values.md", "| none | .70", rare)


def _samplers() -> Iterator[Claim]:
    tables = ("300 rows", "3,000 rows", "30,000 rows")
    references = (("234,002", ".974"), ("2,624,720", ".996"), ("847,616", ".988"))
    for table, (models, reliability) in zip(tables, references, strict=True):
        yield Claim(
            "docs/values.md",
            f"({models} models, reliability {reliability}",
            {
                f"value_samplers/{table}: reference, models": models,
                f"value_samplers/{table}: reference, reliability": reliability,
            },
        )

    def row(names: Sequence[str]) -> list[Cell]:
        cells = [
            f"value_samplers/{table}: {name}, {column}" if name else ""
            for table, name in zip(tables, names, strict=True)
            for column in ("processor", "agreement")
        ]
        return list(cells)

    gains = row(["gains, 802 models", "gains, 386 models", "gains, 306 models"])
    stratified = row(["stratified, 52 permutations", "stratified, 2 permutations", ""])
    stratified[4] = (
        "value_samplers/30,000 rows: stratified, 2 permutations, processor, extrapolated"
    )
    truncated = row(["truncated, 130 permutations", "truncated, 10 permutations", ""])
    truncated[4] = "value_samplers/30,000 rows: truncated, 10 permutations, processor, extrapolated"
    learned = [
        cell
        for table in tables
        for cell in (f"value_samplers/{table}: one permutation of scikit-learn's models", "")
    ]
    yield from _table(
        "docs/values.md",
        "| gains (802, 386 and 306 models)",
        [
            gains,
            row(["regression, 90 permutations", "", ""]),
            stratified,
            truncated,
            row(["leave_one_out"] * 3),
            row(["influence"] * 3),
            row(["knn_shapley"] * 3),
            learned,
        ],
    )


def _direct_answers() -> Iterator[Claim]:
    columns = (
        *("direct, processor", "retraining without each row, extrapolated"),
        *("largest error", "bound, median", "bound, largest"),
    )
    tables = (
        *("logistic, 3,000 x 40", "logistic, 10,000 x 40", "logistic, 50,000 x 100"),
        *("softmax, 10,000 x 40", "svm, 10,000 x 40"),
    )
    yield from _table(
        "docs/values.md",
        "| logistic, 3,000 x 40 | 0.06 s",
        [[f"leave_one_out/{table}: {column}" for column in columns] for table in tables],
    )


def _softmax_values() -> Iterator[Claim]:
    few, own = "softmax_values/300 x 10 x 4 classes: ", ("models", "processor", "reliability")
    yield from _table(
        "docs/values.md",
        "| 300 x 10, 4 classes | stratified",
        [
            *([f"{few}{sampler}, {what}" for what in own] for sampler in ("stratified", "gains")),
            *(
                [f"softmax_values/{rows} x 5 classes: default, {what}" for what in own]
                for rows in ("3,000 x 20", "10,000 x 40")
            ),
        ],
    )
    yield Claim(
        "docs/values.md",
        "0.95 (`python -m tests.benchmarks softmax_values`",
        {f"{few}differences by standard errors": "0.95"},
    )


def _groups() -> Iterator[Claim]:
    page, name = "docs/values.md", "group_values/{}: {}".format
    large = ("50,000 x 40, alike", "50,000 x 40, label noise", "50,000 x 100, label noise")
    columns = (
        *("models", "fit, processor", "values, processor", "values, wall"),
        "error / spread",
    )
    yield from _table(
        page,
        "| 50,000 x 40, alike",
        [[name(table, column) for column in columns] for table in large],
    )
    rows: list[list[str]] = []
    for table in (
        *("3,000 x 40, alike", "3,000 x 40, label noise"),
        *("10,000 x 40, alike", "10,000 x 40, label noise"),
    ):
        ours = "regression" if table.startswith("3,000") else "two_level"
        rows.append(
            [
                name(table, f"{sampler}, {column}")
                for sampler in (f"{ours} (default)", "permutation")
                for column in ("processor", "models", "true error / spread")
                if (sampler, column) != ("permutation", "processor")
            ]
        )
    yield from _table(page, "| 3,000 x 40, alike", rows)
    yield Claim(
        page,
        "The whole run took at most 1,079 MB.",
        {"group_values/most memory of all": "1,079 MB"},
    )


def _large_tables() -> Iterator[Claim]:
    small, large = "large_studies/10,000 x 40: ", "large_studies/50,000 x 100: "
    page = "docs/your-table.md"
    yield from _table(
        page,
        "| `fit` | 0.4",
        [
            [f"{small}{name}, processor", f"{large}{name}, processor"]
            for name in ("fit", "suspects")
        ],
    )
    yield from _table(
        page,
        "| `select` of 2,000 rows",
        [
            [f"{small}{name}, processor", ""]
            for name in (
                "select 2,000",
                "memorization, 1,000 test rows",
                "predictive, 1,000 rows, 1,000 resamples",
            )
        ],
    )
    yield from _table(
        page,
        "| most memory of the process",
        [[f"{small}most memory", "large_studies/most memory of all"]],
    )


def _intervals() -> Iterator[Claim]:
    tables = (
        "weak penalty, 200 x 5, C = 10",
        "strong penalty, 200 x 5, C = 0.02",
        "rare class, strong penalty, 1000 x 20, C = 0.01",
        "spam, 300 x 57, C = 1",
        "spam, 300 x 57, C = 0.01",
    )
    methods = ("bootstrap", "scikit-learn", "Laplace", "sandwich", "any penalty")
    yield from _table(
        "docs/uncertainty.md",
        "| 200 x 5, C = 10 ",
        [[f"intervals/{table}: {method}" for method in methods] for table in tables],
    )


SMALL_RECIPES = (
    "agreement of two seeds",
    "ceiling of the LDS against means of 2 seeds",
    "smoothness",
    "LDS, predictor",
    "LDS, influence at models of subsets",
    "LDS, projected gradients",
    "LDS, linear datamodel",
)
AT_ALL_ROWS = (
    "projected gradients",
    "projected gradients, ridge 0.001",
)
BY_HALVES = ("predictor", "predictor with effects", "linear datamodel")


def _torch() -> Iterator[Claim]:
    page = "docs/your-model.md"
    yield from _table(
        page,
        "| agreement of two seeds",
        [
            [f"torch_targets/{recipe}: {name}" for recipe in ("SGD", "SGD with momentum")]
            for name in SMALL_RECIPES
        ],
    )
    yield from _table(
        page,
        "| `predictor` | 0.80",
        [
            [f"torch_goal/LDS, {method}, {count} halves" for count in (100, 300, 500)]
            for method in BY_HALVES
        ],
    )
    yield from _table(
        page,
        "| influence with the Gauss-Newton matrix",
        [
            [
                "torch_goal/LDS, influence at models of halves",
                "torch_goal/LDS, Gauss-Newton influence, one seed",
                "torch_goal/LDS, Gauss-Newton influence, two seeds",
            ],
            *(
                ["", *(f"torch_goal/LDS, {method}, {seeds}" for seeds in ("one seed", "two seeds"))]
                for method in AT_ALL_ROWS
            ),
        ],
    )
    yield from _table(
        page,
        "| 784-64-10 | 64 | 64",
        [
            [f"torch_targets/{network}: loop / together"]
            for network in (
                "784-64-10, batch 64",
                "784-8-10, batch 64",
                "49-16-10, batch 16",
                "49-16-10, batch 16, 256 models",
            )
        ],
    )


def _selection() -> Iterator[Claim]:
    tables = (
        "simulated, 600 rows, logistic",
        "simulated, 3,000 rows, logistic",
        "simulated, 3,000 rows, logistic, 20% wrong",
        "simulated, 10,000 rows, logistic",
        "simulated, 10,000 rows, logistic, 20% wrong",
        "adult, 6,000 rows, logistic",
        "spam, 2,000 rows, logistic",
        "spam, 2,000 rows, svm",
    )
    choices = ("all rows", "random 20%", "selected 20%")
    yield from _table(
        "docs/values.md",
        "| simulated, 600 rows x 40",
        [[f"selection/{table}: {choice}" for choice in choices] for table in tables],
    )


DOCS_CLAIMS = (
    *_engine(),
    *_heads(),
    *_suspects(),
    *_wrong_counts(),
    *_samplers(),
    *_direct_answers(),
    *_softmax_values(),
    *_groups(),
    *_large_tables(),
    *_intervals(),
    *_torch(),
    *_selection(),
    Claim(
        "docs/explore.md",
        "is 42 ms for spam (300 x 57), 70 ms for 10,000 x 40,",
        {
            "explore/click to paint, 300 x 57 (spam)": "42 ms",
            "explore/click to paint, 10,000 x 40": "70 ms",
        },
    ),
    Claim(
        "docs/explore.md",
        "and 0.8 s for 50,000 x 40",
        {"explore/click to paint, 50,000 x 40": "0.8 s"},
    ),
    Claim(
        "docs/values.md",
        "all, 2 s of processor time for 2,000 of 10,000 rows x 40.",
        {"large_studies/10,000 x 40: select 2,000, processor": "2 s"},
    ),
    Claim(
        "docs/your-model.md",
        "85% of the ceiling with 500 retrained halves. With these derivatives it reaches 88%",
        {
            "torch_goal/share of the ceiling, predictor, 500 halves": "85%",
            "torch_goal/share of the ceiling, predictor with effects, 500 halves": "88%",
        },
    ),
    Claim(
        "docs/your-model.md",
        "the loop runs at 23% of the processor's peak of products",
        {"torch_targets/784-64-10, batch 64: the loop's share of the peak of products": "23%"},
    ),
    Claim(
        "docs/your-model.md",
        "training of halves would be 8.8",
        {"torch_targets/784-64-10, batch 64: most that training of halves can gain": "8.8"},
    ),
    Claim(
        "docs/your-model.md",
        "with 100, the predictor reaches 83%",
        {"torch_goal/share of the ceiling, predictor, 100 halves": "83%"},
    ),
    Claim(
        "docs/your-model.md",
        "an LDS of 0.81, which is 84% of the ceiling",
        {
            "torch_goal/LDS, effects of training": "0.81",
            "torch_goal/share of the ceiling, effects of training": "84%",
        },
    ),
)
