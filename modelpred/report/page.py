"""Writes the report: the answers, then all sections in reading order, in one HTML file.

The file contains its styles and drawings, and its content policy forbids network requests. It has no
date, so the same inputs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from modelpred.report.answers import answers, title
from modelpred.report.blocks import Block, Figure, Folded, Section, Text, facts_table
from modelpred.report.fidelity import Verdict, fidelity_blocks, headline, verdict_table, verdicts
from modelpred.report.figures import learning_curve
from modelpred.report.inputs import ReportInputs
from modelpred.report.methods import COLOURS, design_words
from modelpred.report.studies import ABOUT_PREDICTIONS, data_sections, not_run, study_section
from modelpred.report.words import count, models_used, plain
from modelpred.report.words import microseconds as time_words

_HERE = Path(__file__).parent


def write_page(inputs: ReportInputs, folder: Path) -> Path:
    """Path of the page, written into the folder."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((_HERE / "page.html").read_text(encoding="utf-8"))
    text = template.render(
        title=title(inputs),
        lede=lede(inputs),
        answers=answers(inputs),
        sections=sections(inputs),
        # Our own style sheet; as plain text it would be escaped.
        style=Markup(_variables() + (_HERE / "page.css").read_text(encoding="utf-8")),
        inputs=inputs,
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "index.html"
    path.write_text(text, encoding="utf-8")
    return path


def _variables() -> str:
    """The colours of the figures as CSS variables, for the light and the dark page."""
    light = "".join(f"--{name}:{pair[0]};" for name, pair in COLOURS.items())
    dark = "".join(f"--{name}:{pair[1]};" for name, pair in COLOURS.items())
    return f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"


def sections(inputs: ReportInputs) -> list[Section]:
    """All sections in reading order."""
    return [*data_sections(inputs), trust_section(inputs), run_section(inputs)]


def lede(inputs: ReportInputs) -> str:
    """The introduction: the model, the rows it was trained on, and its quality."""
    dataset, targets = inputs.dataset, inputs.section("targets")
    family = plain(targets.get("model", "target"))
    strength = "" if targets.get("C") is None else f", C = {plain(targets['C'])}"
    quality = "" if inputs.baseline is None else f" {inputs.baseline.sentence}"
    used = f"; {dataset.rows_unused}" if dataset.rows_unused else ""
    return (
        f"The model ({family}{strength}) predicts {dataset.label_name} from "
        f"{count(len(dataset.feature_names))} features. It was trained on "
        f"{count(len(dataset.row_ids))} rows and tested on {count(len(dataset.test_row_ids))} "
        f"others{used}.{quality}"
    )


def trust_section(inputs: ReportInputs) -> Section:
    """How near predicted models come to retrained ones, with the full tables folded."""
    verdicts_shown = verdict_table(inputs)
    folded = {
        "Every method on every kind of held-out subset": fidelity_blocks(inputs),
        **{
            section.title: section.blocks
            for section in (study_section(name, inputs) for name in ABOUT_PREDICTIONS)
        },
        "The fit: loss and validation error by epoch": history_blocks(inputs),
        "Definitions": definitions(),
    }
    blocks: list[Block] = [
        Text(headline(inputs), finding=True),
        *(Text(sentence) for sentence in _times(inputs)),
        *([] if verdicts_shown is None else [verdicts_shown]),
        *(Folded(summary, parts) for summary, parts in folded.items()),
    ]
    return Section("trust", "How far to trust the predictions", blocks)


def _fitted(inputs: ReportInputs) -> int | None:
    """Number of subsets that the predictor was fitted to; None if it is not known."""
    trained = inputs.targets_metrics.get("by_design")
    if isinstance(trained, Mapping):
        counts = cast("Mapping[str, Mapping[str, int]]", trained)
        return sum(row["subsets"] for name, row in counts.items() if name.startswith("fit-"))
    asked = inputs.section("subsets").get("fit")
    return sum(asked.values()) if isinstance(asked, Mapping) else None


def _times(inputs: ReportInputs) -> list[str]:
    """What was fitted to how many models, and the times of a prediction and of retraining."""
    found = verdicts(inputs.fidelity)
    if not found:
        return []
    fitted = _fitted(inputs)
    number_of = f"{count(fitted)} " if fitted else ""
    fit = (
        f"{_engines(inputs)} The predictor was "
        f"fitted to {number_of}models trained on subsets of the training rows. A prediction takes "
        f"{time_words(found[0].predictor['microseconds'])}. {_score(found)}"
    )
    sentences = [fit]
    edits = inputs.studies.get("edits")
    exact = edits.metrics.get("retraining", {}).get("microseconds") if edits else None
    if exact:
        sentences.append(
            f"Exact retraining takes {time_words(exact)} per subset with this project's batched "
            "solver."
        )
    return sentences


def _engines(inputs: ReportInputs) -> str:
    """Which studies of the data predicted models, and which retrained them."""
    used: dict[str, list[str]] = {"predicted": [], "retrained": []}
    for name, result in inputs.studies.items():
        if name not in ABOUT_PREDICTIONS and not_run(name, inputs) is None:
            used[models_used(result.metrics)].append(name)
    predicted, retrained = used["predicted"], used["retrained"]
    if not retrained:
        return "All answers above come from predicted models, unless they say retrained."
    if not predicted:
        return "All answers above come from retrained models."
    return (
        f"The answers of {', '.join(retrained)} come from retrained models, the others from predicted "
        "models, unless they say retrained."
    )


def _score(found: Sequence[Verdict]) -> str:
    """A sentence on the kinds of subsets where the predictor is better, equal or worse."""
    parts: list[str] = []
    for outcome, words in (
        ("better", "more accurate than every other method on"),
        ("equal", "as accurate as the best other method on"),
        ("worse", "less accurate than the best other method on"),
    ):
        names = [design_words(v.design) for v in found if v.outcome == outcome]
        if names:
            parts.append(f"{words} {_listed(names)}")
    return f"The predictor is {', '.join(parts)}."


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def history_blocks(inputs: ReportInputs) -> list[Block]:
    """Loss and validation error by epoch."""
    if inputs.history is None or inputs.history.is_empty():
        return [Text("This run has no history of the fit.")]
    names = {"validation_error": "Validation error", "loss": "Fitting loss"}
    panels = [
        learning_curve(f"history-{column}", words, inputs.history, column=column)
        for column, words in names.items()
        if column in inputs.history.columns and inputs.history[column].drop_nulls().len()
    ]
    seconds = inputs.history["seconds"].to_numpy() if "seconds" in inputs.history else []
    took = f" in {time_words(1e6 * float(np.max(seconds)))}" if len(seconds) else ""
    caption = (
        f"{count(inputs.history.height)} epochs{took}. The validation error is measured on subsets "
        "that are neither in the fit nor in the held-out tables. The epoch with the lowest "
        "validation error is used."
    )
    return [Figure(caption, panels)]


def run_section(inputs: ReportInputs) -> Section:
    """Parameters, counts, fingerprints, versions and seconds of this run."""
    groups: dict[str, Mapping[str, object]] = {
        "Data": _data_facts(inputs),
        "Trained models": inputs.targets_metrics,
        "Lineage": inputs.lineage,
        "Predictor: held-out errors": inputs.predictor_metrics,
        "Parameters (params.yaml)": inputs.params,
        **{f"Study {name}": result.metrics for name, result in inputs.studies.items()},
    }
    shown = ("Data",)
    tables = [
        facts_table(
            caption,
            facts,
            folded=caption not in shown,
            measured=caption.startswith(("Trained", "Predictor", "Study")),
        )
        for caption, facts in groups.items()
        if facts
    ]
    return Section("run", "Data, settings and versions of this run", tables)


def _data_facts(inputs: ReportInputs) -> dict[str, object]:
    dataset = inputs.dataset
    classes = ", ".join(
        f"{name}: {count(int((dataset.labels == index).sum()))}"
        for index, name in enumerate(dataset.classes)
    )
    return {
        "table": dataset.name,
        "training rows": count(len(dataset.row_ids)),
        "test rows": count(len(dataset.test_row_ids)),
        **({"rows used": dataset.rows_used} if dataset.rows_unused else {}),
        "features": count(len(dataset.feature_names)),
        "label": dataset.label_name,
        **({"training rows by class": classes} if classes else {}),
        "scaling": f"{dataset.scaling.name}, computed from training rows only",
        "source": dataset.attribution,
        "fingerprint": dataset.fingerprint,
    }


def definitions() -> list[Block]:
    """Definitions of the numbers, and limits of what they show."""
    return [
        Text(
            "Parameter error: the norm of the difference between predicted and retrained "
            "parameters, divided by the norm of the retrained ones. Tables show its mean over "
            "held-out subsets, the 95% interval of the mean (Student's t) and the median. Held-out "
            "subsets were used neither for the fit nor for any choice of settings."
        ),
        Text(
            "Test-loss error: the mean absolute difference between the test loss of the predicted "
            "and of the retrained model. Spearman within size: the rank correlation of test losses "
            "among subsets of similar size. Across sizes, a rank correlation mostly measures size."
        ),
        Text(
            "Time per query: measured on this machine, on blocks of subsets, without the "
            "preparation before the first query. Exact retraining uses this project's batched "
            "solver."
        ),
        Text(
            "Models that did not converge, and subsets that lack a class, are marked during "
            "training, counted in the table of trained models and excluded from all comparisons. "
            "They never count as a score of zero."
        ),
        Text(
            "Shapley values: the utility is the negative mean test loss; values are estimated from "
            "random permutations. Exact values use the same estimator with retrained models and "
            "other permutations. Their split-half reliability is an upper bound for the agreement "
            "of any method."
        ),
        Text(
            "Calibration: models are predicted for bootstrap resamples of the training rows, and "
            "their probabilities are averaged. The retrained bootstrap trains on the same "
            "resamples. The expected calibration error (ECE) is the mean difference between "
            "confidence and accuracy over bins of equal width or equal mass."
        ),
        Text(
            "The method follows Zeng, Wang, Chen, Just, Jin and Jia, “ModelPred: A Framework for "
            "Predicting Trained Model from Training Data” (SaTML 2023). The protocols for "
            "selection, memorization and calibration are this project's own. The report does not "
            "claim to reproduce numbers of that paper."
        ),
    ]
