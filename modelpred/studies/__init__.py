"""Studies: applications of predicted models, for any refit, compared with exact retraining.

`STUDIES` lists them. The sections of params.yaml, the stages of dvc.yaml, the flows, the metrics and
the sections of the report follow from it; docs/studies.md says how to add a study.
DVC reads the dict as text, so it holds literals only.
"""

from typing import NotRequired, TypedDict


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
