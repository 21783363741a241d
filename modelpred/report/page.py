"""The page: sections in reading order, put into one template, written as one file.

The file holds its style and drawings, asks for nothing from any network (its content policy
forbids it) and carries no date, so the same inputs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from modelpred.report.blocks import (
    Figure,
    Section,
    Text,
    count,
    facts_table,
    percent,
    percent_interval,
    plain,
)
from modelpred.report.blocks import microseconds as time_words
from modelpred.report.fidelity import fidelity_section, headline, verdict_table, verdicts
from modelpred.report.figures import learning_curve
from modelpred.report.inputs import ReportInputs
from modelpred.report.methods import COLOURS, design_words
from modelpred.report.studies import study_sections

_HERE = Path(__file__).parent


def write_page(inputs: ReportInputs, folder: Path) -> Path:
    """Path of the page, written into the folder."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((_HERE / "page.html").read_text(encoding="utf-8"))
    text = template.render(
        headline=headline(inputs),
        lede=lede(inputs),
        verdicts=verdict_table(inputs),
        sections=sections(inputs),
        # The style is a file of ours; as text it would be escaped.
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
    return [
        fidelity_section(inputs),
        *study_sections(inputs),
        history_section(inputs),
        run_section(inputs),
        notes_section(),
    ]


def lede(inputs: ReportInputs) -> list[str]:
    """What was trained and what came out, in a few sentences with their numbers."""
    targets = _section(inputs, "targets")
    found = verdicts(inputs.fidelity)
    subsets = _section(inputs, "subsets").get("fit")
    fitted = sum(subsets.values()) if isinstance(subsets, Mapping) else None
    number_of = f"{count(fitted)} " if fitted else ""
    trained = (
        f"{number_of}{plain(targets.get('model', 'target'))} models, each trained on a subset of "
        f"{count(len(inputs.dataset.row_ids))} rows of {inputs.dataset.name} with "
        f"{count(len(inputs.dataset.feature_names))} features, taught a predictor to give the "
        "trained parameters from the subset alone."
    )
    sentences = [trained]
    if found:
        first = found[0]
        interval = percent_interval(
            first.ours["parameter_error_low"], first.ours["parameter_error_high"]
        )
        sentences.append(
            f"On {count(first.subsets)} held-out {design_words(first.design)} its parameters are "
            f"{percent(first.ours['parameter_error'])} off (95% interval {interval}), at "
            f"{time_words(first.ours['microseconds'])} a query. {_score(inputs)}"
        )
    edits = inputs.studies.get("edits")
    exact = edits.metrics.get("retraining", {}).get("microseconds") if edits else None
    if exact:
        sentences.append(
            f"Exact retraining by this project's own batched solver takes {time_words(exact)} a "
            "subset (in the deletion study)."
        )
    return sentences


def _score(inputs: ReportInputs) -> str:
    """On how many designs the predictor is ahead, even or behind."""
    found = verdicts(inputs.fidelity)
    parts: list[str] = []
    for outcome, words in (
        ("ahead", "It is ahead of every rival on"),
        ("even", "level with the best rival on"),
        ("behind", "behind the best rival on"),
    ):
        names = [design_words(v.design) for v in found if v.outcome == outcome]
        if names:
            parts.append(f"{words} {_listed(names)}")
    text = ", ".join(parts)
    return f"{text if text.startswith('It') else 'It is ' + text}."


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _section(inputs: ReportInputs, name: str) -> Mapping[str, object]:
    part = inputs.params.get(name)
    return part if isinstance(part, Mapping) else {}


def history_section(inputs: ReportInputs) -> Section:
    """How fitting went, epoch by epoch."""
    title = "Fitting: how the predictor learned"
    if inputs.history is None or inputs.history.is_empty():
        return Section("history", title, [Text("No history of the fitting was kept in this run.")])
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
        "that are neither in the fit nor in the held-out tables above; the best epoch by it is kept."
    )
    return Section("history", title, [Figure(caption, panels)])


def run_section(inputs: ReportInputs) -> Section:
    """Parameters, counts, fingerprints, versions and seconds of this run."""
    groups: dict[str, Mapping[str, object]] = {
        "Data": _data_facts(inputs),
        "Trained targets": {
            name.replace("_", " "): value for name, value in inputs.targets_metrics.items()
        },
        "Lineage": inputs.lineage,
        "Predictor: held-out errors": inputs.predictor_metrics,
        "Parameters (params.yaml)": inputs.params,
        **{f"Study {name}": result.metrics for name, result in inputs.studies.items()},
    }
    shown = ("Data", "Trained targets", "Lineage")
    tables = [
        facts_table(caption, facts, folded=caption not in shown)
        for caption, facts in groups.items()
        if facts
    ]
    return Section("run", "What was run", tables)


def _data_facts(inputs: ReportInputs) -> dict[str, object]:
    dataset = inputs.dataset
    classes = ", ".join(
        f"{name}: {count(int((dataset.labels == index).sum()))}"
        for index, name in enumerate(dataset.classes)
    )
    return {
        "table": dataset.name,
        "rows to train on": len(dataset.row_ids),
        "rows to test on": len(dataset.test_row_ids),
        "features": len(dataset.feature_names),
        "label": dataset.label_name,
        **({"training rows by class": classes} if classes else {}),
        "scaling": f"{dataset.scaling.name}, constants from training rows only",
        "source": dataset.attribution,
        "fingerprint": dataset.fingerprint,
    }


def notes_section() -> Section:
    """How each number is measured, and what is not claimed."""
    notes = [
        Text(
            "Parameter error of one subset is the norm of the difference between predicted and "
            "retrained parameters over the norm of the retrained ones. Tables give its mean over "
            "held-out subsets, the 95% interval of that mean (Student's t) and the median. "
            "Held-out subsets were used neither to fit nor to choose anything."
        ),
        Text(
            "Test-loss error is the mean absolute difference between the mean test loss of the "
            "predicted and of the retrained model. Spearman within size ranks only subsets of "
            "about the same size against each other, since across sizes a rank correlation mostly "
            "measures size."
        ),
        Text(
            "Time per query is measured on the machine of the run, on blocks of subsets, and "
            "leaves out what a method does once before its first query. Exact retraining is this "
            "project's own batched solver, not a loop over a library's."
        ),
        Text(
            "A retrained model that did not converge and a subset that lacks a class are marked "
            "when they are trained, counted under “What was run” and left out of the comparison; "
            "neither ever counts as a score of zero."
        ),
        Text(
            "Shapley values are those of the negative mean test loss, by sampling permutations. "
            "Exact values come from the same estimator with every model retrained, on other "
            "permutations; their own reliability between halves bounds what any method can show."
        ),
        Text(
            "Calibration: models are predicted for bootstrap resamples of the pool and their "
            "probabilities averaged; the refit bootstrap retrains on the same resamples. The "
            "expected calibration error (ECE) has bins of equal width or of equal mass."
        ),
        Text(
            "The protocols for selection, memorization and calibration are this project's own. The "
            "method follows Zeng, Wang, Chen, Just, Jin and Jia, “ModelPred: A Framework for "
            "Predicting Trained Model from Training Data” (SaTML 2023); no number of that paper "
            "is claimed to be reproduced here."
        ),
    ]
    return Section("notes", "How each number is measured", notes)
