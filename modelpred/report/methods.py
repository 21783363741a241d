"""How each method is called and drawn, the same everywhere on the page.

A method keeps its colour, marker and dash in every figure, so no figure relies on colour alone.
Colours are CSS variables with a light and a dark value; figures are drawn with the light one and
`modelpred.report.canvas` puts the variable in its place.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from modelpred.refits import EXACT

COLOURS: dict[str, tuple[str, str]] = {
    # name: (on light ground, on dark ground); every pair has at least 3:1 against its ground
    "ink": ("#1d232b", "#e6e8eb"),
    "muted": ("#5b6470", "#a3abb6"),
    "grid": ("#dfe3e8", "#353c46"),
    "predictor": ("#1652c6", "#7fabff"),
    "newton": ("#c2410c", "#ff9566"),
    "datamodel": ("#0b7a6b", "#3fc7b2"),
    "influence": ("#946300", "#e3b341"),
    "rescaled": ("#8b2fa0", "#d78fea"),
    "full": ("#68707c", "#98a1ad"),
    "spare": ("#b0306a", "#f58bb8"),
    "size1": ("#cc6f00", "#ffb454"),
    "size2": ("#d1495b", "#ff8591"),
    "size3": ("#9c3587", "#e583d4"),
    "size4": ("#5b2ca0", "#b197ff"),
    "size5": ("#20208d", "#84adff"),
}
SIZE_COLOURS = ("size1", "size2", "size3", "size4", "size5")


@dataclass(frozen=True)
class Look:
    """Label of a method and how it is drawn."""

    label: str
    colour: str
    marker: str
    dash: str


_LOOKS = {
    "full_model": Look("Full-data model", "full", "X", ":"),
    "influence": Look("Influence function", "influence", "s", "--"),
    "rescaled_influence": Look("Rescaled influence", "rescaled", "D", "-."),
    "newton_step": Look("One Newton step", "newton", "^", "--"),
    "fine_tuned_10": Look("Fine-tuned, 10 steps", "rescaled", "s", "--"),
    "fine_tuned_30": Look("Fine-tuned, 30 steps", "influence", "D", "-."),
    "linear_datamodel": Look("Linear datamodel", "datamodel", "v", "-."),
    "batched_retraining": Look("Exact retraining, all at once", "ink", "*", "-."),
    "retraining": Look("Exact retraining", "ink", "*", "-"),
    "warm_retraining": Look("Exact retraining, warm start", "ink", "*", "--"),
    "shapley": Look("Shapley", "predictor", "o", "-"),
    "banzhaf": Look("Banzhaf", "datamodel", "v", "-."),
    "leave_one_out": Look("Leave-one-out", "spare", "P", ":"),
    "held_out_confidence": Look("Held-out confidence", "newton", "^", "--"),
    "self_confidence": Look("Self-confidence", "rescaled", "D", "-."),
    "out_of_fold": Look("Out-of-fold confidence", "datamodel", "v", ":"),
    "knn_shapley": Look("kNN-Shapley", "influence", "s", "--"),
    "greedy": Look("Greedy", "size4", "o", "--"),
    "swapped": Look("Greedy with swaps", "size4", "o", "-"),
    "random": Look("Random order", "full", "X", ":"),
    "all_rows": Look("All rows", "ink", "*", "-"),
    "refit_bootstrap": Look("Refit bootstrap", "ink", "D", "--"),
}
_REFINED_DASHES = {"refine 0.5": "--", "refine 1": "-.", "refine 2": ":", "refine 4": ":"}
OURS = ("predictor", "predicted")
TRUTHS = (*EXACT, "refit_bootstrap")

DESIGNS = {
    "uniform": "random subsets of any size",
    "prefix": "prefixes of random orders",
    "deletion": "deletions of up to half of the rows",
    "addition": "additions of new rows",
    "bootstrap": "bootstrap resamples",
    "leave_one_out": "one row left out",
    "edits_deletion": "deletions of each size",
    "edits_addition": "additions of each size",
}


def is_ours(method: str) -> bool:
    """Whether the method is the predictor, refined or not."""
    return method.startswith(OURS)


def is_early(method: str) -> bool:
    """Whether the method is the predictor stopped before its last stage."""
    return method.startswith("predictor_stage_")


def by_size(methods: Iterable[str]) -> list[str]:
    """The methods that figures over sizes show: neither retraining nor answers stopped early."""
    return [method for method in methods if not (method in TRUTHS or is_early(method))]


def is_rival(method: str) -> bool:
    """Whether the method competes with the predictor: neither the predictor nor the truth."""
    return not is_ours(method) and method not in TRUTHS


def look(method: str) -> Look:
    """How a method is called and drawn; a method that is not known here gets a readable name."""
    if method in _LOOKS:
        return _LOOKS[method]
    words = method.replace("_", " ").replace("+", " + ").strip()
    if is_ours(method):
        rest = words.removeprefix("predictor").removeprefix("predicted").strip(" +,")
        dash = _REFINED_DASHES.get(rest, "-")
        return Look(f"ModelPred, {rest}" if rest else "ModelPred", "predictor", "o", dash)
    return Look(words[:1].upper() + words[1:], "spare", "P", ":")


def in_order(methods: list[str]) -> list[str]:
    """Methods as every table and legend lists them: ours, rivals as they come, the truth."""
    return sorted(methods, key=lambda method: (not is_ours(method), method in TRUTHS))


def design_words(design: str) -> str:
    """What a design draws, in words."""
    return DESIGNS.get(design, design.replace("_", " "))
