"""Numbers of README.md and docs/ that no figure of figures.jsonl supports: reason -> page -> a part of each place.

A place is a line of the README, and a paragraph or table of the docs. The list should get shorter: a number that a
benchmark of the list measures is a claim.
"""

IN_RESULTS = "in an older section of RESULTS.md, whose benchmark keeps no lines"
ONCE = "measured once, by hand"
WITHOUT_FIGURE: dict[str, dict[str, tuple[str, ...]]] = {
    IN_RESULTS: {
        "README.md": ("training is 1.5 to 50 times faster",),
        "docs/installing.md": ("1.5 to 50 times slower",),
        "docs/predictor.md": (
            "Retraining in C takes 10 to 50 us",
            "1.0 to 1.4 times as long as a Newton step",
            "lowers the error by 3% (spam) to 20%",
            "Halving the error needs **4 to 6 times**",
            "Such a prediction costs about five times as much",
        ),
        "docs/uncertainty.md": (
            "| spread of probabilities over resamples",
            "96% of the spreads on spam",
            "90.7% of the cases",
        ),
        "docs/values.md": ("| iris | 0.41 | 8.4 s",),
    },
    ONCE: {
        "README.md": (
            "a loop over scikit-learn | 0 | 0 | 0 | 3,100 µs",
            "the tools of `make test` | + 0.3 GB",
        ),
        "docs/explore.md": ("takes 2 to 6 s of processor time",),
        "docs/operating.md": ("| training processes, one per device |", "writes 4.9 MB of outputs"),
        "docs/predictor.md": (
            "MNIST features .67% to .28%",
            ".7 s for 4,000 rows with",
            "A head of 50 classes",
            "25 to 28 ms of processor time per",
        ),
        "docs/values.md": (
            "82% of it on spam",
            "took 32 s of processor time",
            "mostly 0.3 to 1 for clean rows",
            "all 54 selections had a lower",
        ),
        "docs/your-model.md": ("1.8 ms of",),
    },
    "computed from the figures of a table beside it": {
        "docs/values.md": ("the estimated number is 5 to 7% too low",),
        "docs/your-model.md": ("reaches 60% and 46% of the",),
    },
    "a setting, a definition or a heading: nothing is measured": {
        "docs/engine.md": (
            "when the error on validation subsets is at most 1%",
            "| pool | 3% of the rows",
        ),
        "docs/operating.md": ("95% interval of the paired differences",),
        "docs/predictor.md": (
            "held-out subsets is at most 1%",
            "are not within 1%",
            "-H_s^-1 times its gradient",
            "reaches 1% earlier",
            "| pool | halves | uniform sizes | deletions of up to 10%",
            "`gates.trained_share` of them (90%)",
        ),
        "docs/uncertainty.md": (
            "Intervals are 95%, over subsets",
            "the 5% and 95% quantiles",
            "less often than 90%, whether",
            "coverage of 90% intervals for true probabilities",
        ),
        "docs/values.md": (
            "microseconds to milliseconds, however many rows",
            "from up to 50 times as many subsets",
            "80 times as many rows as a model has parameters",
            "rows, one run at a load of 8 to 10",
            "up to 40% flipped labels",
            "It repeats this twice",
            "The 95% interval comes from the profile likelihood",
            "a likelihood ratio test at 5%",
            "| share | spam, 10% |",
            "| flipped | | AUROC",
            "exactly retrained on 20% of the rows",
            "| table | all rows | random 20%",
        ),
        "docs/your-model.md": (
            "(95% intervals over 200 test rows",
            "95% intervals over 500 test rows",
        ),
        "docs/your-table.md": ("digits of another script", "takes 6% of `--minutes`"),
    },
}
