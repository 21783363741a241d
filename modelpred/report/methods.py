"""Names of methods, and their colours, markers and dashes in figures.

A method has the same colour, marker and dash in every figure, so no figure relies on colour alone.
Colours are CSS variables with a light and a dark value. Figures are drawn with the light value, and
`modelpred.report.canvas` replaces it by the variable.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl

from modelpred.refits import EXACT

COLOURS: dict[str, tuple[str, str]] = {
    # name: (on a light page, on a dark page), each with a contrast of at least 3:1
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
    """Label, colour, marker and dash of a method."""

    label: str
    colour: str
    marker: str
    dash: str


_LOOKS = {
    "full_model": Look("Model of all rows", "full", "X", ":"),
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
    "random": Look("Random order", "full", "X", ":"),
    "all_rows": Look("All rows", "ink", "*", "-"),
    "any_penalty": Look("Any penalty, Laplace", "spare", "P", ":"),
    "refit_bootstrap": Look("Retrained bootstrap", "ink", "D", "--"),
}
_REFINED_DASHES = {"refine 0.5": "--", "refine 1": "-.", "refine 2": ":", "refine 4": ":"}
PREDICTOR_PREFIXES = ("predictor", "predicted")
EXACT_METHODS = (*EXACT, "refit_bootstrap")

DESIGNS = {
    "uniform": "random subsets of any size",
    "prefix": "prefixes of random permutations",
    "deletion": "deletions of up to half of the rows",
    "addition": "additions of new rows",
    "bootstrap": "bootstrap resamples",
    "leave_one_out": "one row removed",
    "edits_deletion": "deletions of each size",
    "edits_addition": "additions of each size",
}


WORDS = {
    "degenerate": "lacks a class, not used",
    "best_rival": "best other method",
    "refine": "correction steps",
    "by design": "by way of drawing subsets",
    "by_design": "by way of drawing subsets",
}


def is_predictor(method: str) -> bool:
    """Whether the method is the predictor or one of its variants."""
    return method.startswith(PREDICTOR_PREFIXES)


def is_early(method: str) -> bool:
    """Whether the method is the predictor stopped before its last stage."""
    return method.startswith("predictor_stage_")


def by_size(methods: Iterable[str]) -> list[str]:
    """The methods in figures of error by size: without retraining and early-stopped predictions."""
    return [method for method in methods if not (method in EXACT_METHODS or is_early(method))]


def is_other(method: str) -> bool:
    """Whether the method is neither the predictor nor exact retraining."""
    return not is_predictor(method) and method not in EXACT_METHODS


def look(method: str) -> Look:
    """Label and style of a method; unknown methods get their own name and a default style."""
    if method in _LOOKS:
        return _LOOKS[method]
    words = method.replace("_", " ").replace("+", " + ").strip()
    if is_predictor(method):
        variant = words.removeprefix("predictor").removeprefix("predicted").strip(" +,")
        dash = _REFINED_DASHES.get(variant, "-")
        variant = _variant_words(variant)
        return Look(f"ModelPred, {variant}" if variant else "ModelPred", "predictor", "o", dash)
    return Look(words[:1].upper() + words[1:], "spare", "P", ":")


def _variant_words(variant: str) -> str:
    """A variant of the predictor in words: `refine 2` becomes `2 correction steps`."""
    if variant in ("refined", "unrefined"):
        return f"{'with' if variant == 'refined' else 'without'} correction steps"
    kind, _, steps = variant.partition(" ")
    if kind == "refine":
        return f"{steps} correction step{'' if steps == '1' else 's'}"
    return f"early stop {steps}" if kind == "stage" else variant


def name_words(name: str) -> str:
    """A name of a file of metrics in words: the label of a method, or what is counted."""
    if name in _LOOKS or is_predictor(name):
        return look(name).label
    return WORDS.get(name) or name.replace("_", " ")


def in_order(methods: list[str]) -> list[str]:
    """The methods in the order of tables and legends: predictor, others, exact retraining."""
    return sorted(methods, key=lambda method: (not is_predictor(method), method in EXACT_METHODS))


def rows_by_method(table: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """The rows of a table with one for each method, in the order of `in_order`."""
    rows = {row["method"]: row for row in table.iter_rows(named=True)}
    return {method: rows[method] for method in in_order(list(rows))}


def predictor_rows(methods: Iterable[str]) -> frozenset[int]:
    """Indices of the rows of the predictor and its variants, which tables highlight."""
    return frozenset(index for index, method in enumerate(methods) if is_predictor(method))


def design_words(design: str) -> str:
    """Description of a design."""
    return DESIGNS.get(design, design.replace("_", " "))
