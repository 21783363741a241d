"""Files of an edit and of its model: Python, CSV, JSON, and a fitted estimator as code."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from modelpred.page.answers import coefficients, plain, scores
from modelpred.page.messages import Edit, ExportAsked
from modelpred.page.pasted import edit_csv, short
from modelpred.page.subject import Subject


def exported(subject: Subject, asked: ExportAsked) -> dict[str, str]:
    """Text and file name of an export.

    Raises:
        InvalidInput: the model has no such form.
    """
    edit = asked.edit
    model = subject.model(edit)  # or says what is wrong
    if asked.form == "python":
        return {"text": python(subject, edit), "name": "edit.py"}
    if asked.form == "csv":
        return {"text": edit_csv(edit), "name": "edit.csv"}
    if asked.form == "sklearn":
        return {"text": model.to_python(), "name": "model.py"}
    return {"text": model_json(subject, edit), "name": "model.json"}


def python(subject: Subject, edit: Edit) -> str:
    """Python that reproduces the model of the edit."""
    lines = ["from modelpred import ModelPred", ""]
    if edit.added and edit.added.rows:
        lines.insert(0, "import polars as pl")
    if subject.source is None:
        lines.append("# mp is the ModelPred that the page was opened with")
    else:
        lines.append(f"mp = ModelPred.load({subject.source!r})")
    arguments: list[str] = []
    if edit.weights:
        arguments.append(f"weights={_written(edit.weights)}")
    if edit.labels:
        labels = {row: _own(subject, label) for row, label in edit.labels.items()}
        arguments.append(f"labels={_written(labels)}")
    if edit.added and edit.added.rows:
        table = subject.cells(edit.added)
        if any(kind.is_temporal() for kind in table.dtypes):
            lines.insert(0, "import datetime")
        labels = [_own(subject, label) for label in edit.added.labels]
        arguments.append(f"added=(pl.DataFrame({table.to_dict(as_series=False)!r}), {labels!r})")
    engine = subject.model(edit).engine.engine
    arguments.append(f"engine={engine!r}")
    body = "".join(f"    {argument},\n" for argument in arguments)
    lines += [f"model = mp.edit(\n{body})", "print(model.compare())", ""]
    return "\n".join(lines)


def _own(subject: Subject, label: str) -> Any:  # noqa: ANN401 - of the type of the fit's labels
    own = subject.label(label)
    return own.item() if isinstance(own, np.generic) else own


def _written(values: Mapping[str, Any]) -> str:
    return repr({key: short(value) for key, value in values.items()})


def model_json(subject: Subject, edit: Edit) -> str:
    """The model and how it does, as JSON."""
    model = subject.model(edit)
    fitted = subject.mp.fitted
    found = coefficients(model, most=None)
    content = {
        "edit": edit.model_dump(),
        "family": subject.mp.model.name,
        "settings": subject.mp.model.settings,
        "classes": list(fitted.dataset.classes),
        "retrained": model.engine.exact,
        "certificate": plain(model.certificate),
        "scores": scores(subject, model.compare()),
        "coefficients": None if found is None else found["rows"],
        "scaled_parameters": [plain(value) for value in model.parameters.tolist()],
        "features": list(fitted.dataset.feature_names),
        "scaling": {
            "offset": list(fitted.reading.scaling.offset),
            "divisor": list(fitted.reading.scaling.divisor),
        },
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"
