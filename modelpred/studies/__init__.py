"""Studies: applications of predicted models, for any refit, compared with exact retraining.

`STUDIES` lists them, and `CONTENTS` what readers need in their results. The sections of params.yaml,
the stages of dvc.yaml, the flows, the metrics and the sections of the report follow from `STUDIES`;
docs/studies.md says how to add a study. DVC reads this dict as text, so it holds literals only.
"""

from typing import NotRequired, TypedDict

from modelpred.studies.contents import Contents, Needed, ends


class Study(TypedDict):
    """Settings of the pipeline for the study in the module `modelpred.studies.NAME`.

    Attributes:
        title: of its section in the report.
        headline: the few numbers that `dvc metrics` compares: by name, the keys of each in the study's
            metrics, joined by dots.
        curve: whether it also compares early stops and refinements of the predictor, and warm starts.
        parameters: whether it needs parameters, and is skipped for a target that is known by its outputs.
        plotted: the table that is also written as one CSV file per method, for `dvc plots`.
    """

    title: str
    headline: dict[str, str]
    curve: NotRequired[bool]
    parameters: NotRequired[bool]
    plotted: NotRequired[str]


STUDIES: dict[str, Study] = {
    "edits": {
        "title": "Deletions and additions: models without some rows, or with more",
        "headline": {"edits.parameter_error": "predictor.parameter_error"},
        "curve": True,
        "plotted": "edits",
    },
    "lds": {
        "title": "Margins: linear datamodelling score (LDS)",
        "headline": {"lds.direct": "predictor.direct", "lds.additive": "predictor.additive"},
        "curve": True,
    },
    "valuation": {
        "title": "Values: rows that help and rows that hurt",
        "headline": {
            "valuation.spearman": "spearman",
            "valuation.ceiling": "truth_reliability",
        },
    },
    "labels": {
        "title": "Labels: labels that look wrong",
        "headline": {"labels.auroc": "best_auroc"},
    },
    "selection": {
        "title": "Selection: rows to keep",
        "headline": {"selection.loss": "methods.greedy.loss", "selection.lead": "lead"},
    },
    "memorization": {
        "title": "Memorization: rows that the model memorizes",
        "headline": {
            "memorization.agreement": "different",
            "memorization.ceiling": "ceiling",
        },
    },
    "calibration": {
        "title": "Calibration: reliability of the probabilities",
        "headline": {
            "calibration.ece": "predicted_bootstrap.ece_width",
            "calibration.std_ratio": "std_ratio",
        },
        "parameters": True,
        "plotted": "reliability",
    },
    "attribution": {
        "title": "Attribution: rows behind coefficients and predictions",
        "headline": {
            "attribution.spearman": "spearman",
            "attribution.confirmed": "flips.predictor.confirmed",
        },
        "parameters": True,
    },
}

# Behind the first screen of the report, in the order of its answers.
ANSWERS = ("labels", "valuation", "selection", "calibration")

# What readers of a study's folder need in it. A study that is not named here is not checked.
_METHOD = ("method",)
_BY_SIZE = Needed(
    _METHOD,
    (
        *("size", "subsets", "parameter_error", "low", "high", "spearman"),
        *ends("test_loss_error"),
    ),
)
_VALUES = ("value", "standard_error", "rank", "true_value", "true_standard_error")
_PLACE = ("class", "feature")

CONTENTS: dict[str, Contents] = {
    "edits": Contents(
        {
            "edits": _BY_SIZE,
            "additions": _BY_SIZE,
            "predicted_against_true": Needed(
                number=("size", "true_loss", "predicted_loss", "parameter_error")
            ),
            "break_even": Needed(
                ("way",),
                (
                    *("retraining_microseconds", "predictor_microseconds"),
                    *("preparation_seconds", "queries"),
                ),
                ("busy",),
            ),
        },
        optional=Needed(section=("addition", "retraining")),
        may_lack=("additions", "break_even"),
        by_method="edits",
    ),
    "lds": Contents(
        {
            "lds": Needed(("method", "form"), ("lds", "low", "high", "test_rows", "subsets")),
        }
    ),
    "valuation": Contents(
        {
            "values": Needed(("row_id",), _VALUES),
            "groups": Needed(number=("rows", *_VALUES)),
            "methods": Needed(
                _METHOD, (*ends("spearman"), "top_overlap", "bottom_overlap", "seconds")
            ),
        },
        optional=Needed(
            number=(
                *("permutations", *ends("spearman"), "top_overlap", "bottom_overlap"),
                *("truth_reliability", "truth_seconds", "truth_top_overlap"),
            )
        ),
        may_lack=("groups",),
    ),
    "labels": Contents(
        {
            "suspects": Needed(
                ("row_id",), ("wrong", "held_out_confidence"), ("mislabelled", "cutoff")
            ),
            "detection": Needed(_METHOD, (*ends("auroc"), "recall", "seconds"), ("ours",)),
            "classes": Needed(
                ("method", "class"),
                ("rows", "planted", *ends("auroc")),
            ),
            "recall": Needed(_METHOD, ("inspected", "recall")),
        },
        Needed(number=("planted", *ends("wrong"))),
        Needed(number=("share", "best_auroc")),
    ),
    "selection": Contents(
        {
            "curves": Needed(
                ("method", "order"), ("share", "rows", "loss", "low", "high", "accuracy")
            ),
            "areas": Needed(("method", "order"), ("gain", "low", "high")),
            "methods": Needed(
                _METHOD, ("rows", "loss", "low", "high", "accuracy", "seconds"), ("ours",)
            ),
            "chosen": Needed(("row_id",)),
        },
        Needed(
            number=("share", "rows", "validation_rows", "test_rows"),
            section=("methods",),
        ),
        Needed(number=ends("lead")),
    ),
    "memorization": Contents(
        {
            "rows": Needed(
                ("row_id",),
                (*ends("memorization", "soft"), "rank", "true_memorization", "true_soft"),
            ),
            "influences": Needed(
                ("row_id",), ("test_row", "influence", "low", "high", "true_influence")
            ),
            "methods": Needed(("method", "form"), ("different", "ceiling", "seconds")),
        },
        Needed(("soft",), ("subsets", "share", "different", "ceiling", "truth_seconds")),
    ),
    "calibration": Contents(
        {
            "summary": Needed(
                _METHOD,
                ("nll", "brier", "ece_width", "ece_mass", "noise_width", "noise_mass"),
            ),
            "reliability": Needed(_METHOD, ("bin", "confidence", *ends("accuracy"), "count")),
            "refits": Needed(
                _METHOD,
                (
                    "nll",
                    *ends("std_ratio"),
                    "within",
                    "endpoint_error",
                    "endpoint_error_95",
                    "seconds",
                ),
            ),
            "predictions": Needed(
                number=("test_row", "label", "before", "low", "high", "true_low", "true_high")
            ),
            "parameters": Needed(_PLACE, ("before", "low", "high", "true_low", "true_high")),
            "coverage": Needed(
                ("method", "about"), ("tables", *ends("probabilities", "parameters"))
            ),
        },
        Needed(number=("resamples", "truth_seconds")),
    ),
    "attribution": Contents(
        {
            "methods": Needed(_METHOD, (*ends("spearman"), "above", "seconds")),
            "parameters": Needed(_PLACE, ("parameter", "value")),
            "responsible": Needed(
                ("row_id", *_PLACE), ("parameter", "place", "derivative", "removal", "exact")
            ),
            "effects": Needed(("row_id",), ("test_row", "place", "effect", "exact")),
            "flip_methods": Needed(
                _METHOD, ("rows", "found", "confirmed", "size", "common", "seconds")
            ),
            "flips": Needed(
                ("method", "removed"),
                (
                    *("test_row", "predicted", "margin", "size"),
                    *("predicted_margin", "retrained_margin"),
                ),
                ("found", "confirmed"),
            ),
        },
        Needed(number=("spearman", "above"), section=("methods",)),
    ),
}
