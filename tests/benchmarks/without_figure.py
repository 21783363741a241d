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
            "| iris, logistic | .130 in 2.0 |",
            "are .170 and .033 on random subsets",
            "| wine, softmax | .004 | 32 |",
            "| breast_cancer, anchored | 500 | .0055",
            "| breast_cancer, logistic | .35 / .18 |",
            "Halving the error needs **4 to 6 times**",
            "Such a prediction costs about five times as much",
        ),
        "docs/uncertainty.md": (
            "| spread of probabilities over resamples",
            "96% of the spreads on spam",
            "90.7% of the cases",
        ),
        "docs/values.md": ("| iris | 0.41 | 8.4 s", "| spam, share of the ceiling | 0.930"),
    },
    ONCE: {
        "README.md": (
            "a loop over scikit-learn | 0 | 0 | 0 | 3,100 µs",
            "the tools of `make test` | + 0.5 GB",
        ),
        "docs/comparison.md": ("its accuracy on the 4,000 is 96.8%",),
        "docs/engine.md": ("ten classes, a trial found",),
        "docs/explore.md": ("takes 2 to 6 s of processor time",),
        "docs/operating.md": ("| training processes, one per device |", "writes 4.9 MB of outputs"),
        "docs/predictor.md": (
            "MNIST features .67% to .28%",
            ".7 s for 4,000 rows with",
            "25 to 28 ms of processor time per",
            "LDS .979 on halves in both cases",
            "100 classes of 1,024 features need .4 GiB",
            "bound to the true change was",
            "from .0250 to .0264",
        ),
        "docs/values.md": (
            "82% of it on spam",
            "took 32 s of processor time",
            "mostly 0.3 to 1 for clean rows",
            "all 54 selections had a lower",
            ".92 to 1.00 with those of retraining",
            "| 300 (spam) | stratified |",
            "give a ceiling of 0.931",
            "agree to 0.997 of that ceiling",
            "of 400 and of 800 models, correlate .958",
        ),
        "docs/uncertainty.md": (
            "correlation is below 0.95 for a quarter",
            "The loss of the svm has kinks",
        ),
        "docs/your-model.md": ("1.8 ms of", "took at most 2.5 GiB"),
        "docs/your-table.md": ("| `values` of all rows (800 models, reliability .97)",),
    },
    "computed from the figures of a table beside it": {
        "docs/values.md": ("the estimated number is 5 to 7% too low", "(its root is .989"),
        "docs/your-model.md": ("reaches 89% and 76% of the",),
    },
    "a version, a licence, or the identifier of a publication": {
        "README.md": ("ModelPred needs Python 3.11", "10.24432/C53G6X", "Apache-2.0."),
        "docs/installing.md": (
            "were measured on Linux with Python 3.11",
            "Tested: Linux on x86-64 with Python 3.11",
            "Before 1.0, a minor version",
        ),
    },
    "a setting, a definition or a heading: nothing is measured": {
        "docs/engine.md": (
            "when the error on validation subsets is at most 1%",
            "| pool | 3% of the rows",
        ),
        "docs/gallery.md": ("the strong penalty (C = 0.1)",),
        "docs/notebook.md": ("of 0.001, 0.01, ..., 100 the one",),
        "docs/operating.md": (
            "95% interval of the paired differences",
            "whose weights sum to less than 0.5",
        ),
        "docs/predictor.md": (
            "held-out subsets is at most 1%",
            "are not within 1%",
            "-H_s^-1 times its gradient",
            "reaches 1% earlier",
            "one learned step for every .04",
            "| pool | halves | uniform sizes | deletions of up to 10%",
            "`gates.trained_share` of them (90%)",
        ),
        "docs/uncertainty.md": (
            "Intervals are 95%, over subsets",
            "the 5% and 95% quantiles",
            "less often than 90%, whether",
            "coverage of 90% intervals for true probabilities",
            "have 0.7 N of the N rows",
        ),
        "docs/values.md": (
            "| table | none planted | 5%: 150 |",
            "microseconds to milliseconds, however many rows",
            "from up to 50 times as many subsets",
            "80 times as many rows as a model has parameters",
            "rows, one run at a load of 8 to 10",
            "up to 40% flipped labels",
            "It repeats this twice",
            "0.5, the whole objective is minimised along it",
            "(2,000 / rows)^0.5",
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
            "*Smoothness* near 0.5 means",
            "| | SGD | SGD with momentum 0.9 |",
            "loaded with the version of scikit-learn (1.8, 1.9, ...)",
        ),
        "docs/your-table.md": (
            "takes 6% of `--minutes`",
            "| C, the weight of the data",
        ),
    },
}
