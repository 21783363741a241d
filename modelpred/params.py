"""params.yaml as typed, frozen configs: one section per stage, in pipeline order, and the gates.

Nothing is guessed: an unknown key, a wrong type or a value out of range is one line each, with
what was expected.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from modelpred.dataset import DatasetConfig
from modelpred.dataset.sources import require_plain_paths
from modelpred.errors import InvalidInput
from modelpred.predictor import PredictorConfig
from modelpred.registry import GatesConfig
from modelpred.report import ReportConfig
from modelpred.studies import STUDIES
from modelpred.subsets import SubsetsConfig
from modelpred.targets import TargetsConfig
from modelpred.wording import one_line
from modelpred.yaml_files import Content, read_yaml

LONGEST_SHOWN = 400  # characters of a key or value in a message

Schema = Mapping[str, Any]  # a part of a JSON schema, as pydantic makes it


class _Stages(BaseModel):
    """The sections before those of the studies."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: DatasetConfig = DatasetConfig()
    subsets: SubsetsConfig = SubsetsConfig()
    targets: TargetsConfig = TargetsConfig()
    predictor: PredictorConfig = PredictorConfig()


def _with_studies(names: Iterable[str]) -> type[_Stages]:
    """The sections with one for each study: class `EditsConfig` in module `edits`."""
    sections: dict[str, Any] = {}
    for name in names:
        config = getattr(import_module(f"modelpred.studies.{name}"), f"{name.capitalize()}Config")
        sections[name] = (config, config())
    return create_model("_Studies", __base__=_Stages, **sections)


class Params(_with_studies(STUDIES)):
    """The whole of params.yaml; a section that is left out keeps its defaults."""

    report: ReportConfig = ReportConfig()
    gates: GatesConfig = GatesConfig()


def read_params(path: Path) -> Params:
    """The params in that file.

    Raises:
        InvalidInput: no such file, not YAML, or a line for each key that is unknown or wrong.
    """
    content = read_yaml(path, again=f"run this in the folder that holds {path.name}")
    try:
        # JSON, and strictly: lists may become tuples, but "4" no number and true no 1.
        params = Params.model_validate_json(json.dumps(content), strict=True)
        require_plain_paths(params.dataset)
    except ValidationError as error:
        problems = _problems(error, content)
        raise InvalidInput("\n".join(f"{path.name}: {line}" for line in problems)) from error
    except InvalidInput as error:
        raise InvalidInput(f"{path.name}: {error}") from error
    return params


def _problems(error: ValidationError, content: Content) -> list[str]:
    """A line for each key that is unknown or has a wrong value, in the order of the file."""
    schema = Params.model_json_schema()
    problems = [(*_existing(content, problem["loc"]), problem) for problem in error.errors()]
    deepest = [keys for keys, _, _ in problems]
    lines: dict[str, None] = {}  # a value of several possible types fails once for each
    for keys, value, problem in problems:
        if any(keys == other[: len(keys)] != other for other in deepest):
            continue  # a list fails with its items, whose messages say more
        where = one_line(".".join(keys), most=LONGEST_SHOWN)
        if problem["type"] == "extra_forbidden" or "[key]" in problem["loc"]:
            known = ", ".join(sorted(_known(_part(schema, keys[:-1]))))
            line = f"unknown key {where}; known: {known}"
        elif problem["type"] == "value_error":
            line = f"{where}: {problem['msg'].removeprefix('Value error, ')}"
        else:
            line = (
                f"{where}: expected {_expected(_part(schema, keys), schema)}, got {_shown(value)}"
            )
        lines[line.removeprefix(": ")] = None
    return list(lines)


def _existing(content: Content, location: tuple[str | int, ...]) -> tuple[list[str], Content]:
    """The part of a location that exists in the file, and its value.

    pydantic appends its own words, such as the type that it tried; they name no key.
    """
    keys: list[str] = []
    for step in location:
        if isinstance(content, dict) and step in content:
            content = content[str(step)]
        elif isinstance(content, list) and isinstance(step, int):
            content = content[step]
        else:
            break
        keys.append(str(step))
    return keys, content


def _part(schema: Schema, keys: list[str]) -> Schema:
    """The part of the schema that describes these keys."""
    part = _resolved(schema, schema)
    for key in keys:
        inside = (_step(branch, key) for branch in _branches(part, schema))
        part = _resolved(next((found for found in inside if found is not None), {}), schema)
    return part


def _step(part: Schema, key: str) -> Schema | None:
    if key in part.get("properties", {}):
        return part["properties"][key]
    further = part.get("items" if key.isdigit() else "additionalProperties")
    return further if isinstance(further, Mapping) else None


def _branches(part: Schema, schema: Schema) -> Iterator[Schema]:
    """The part itself, or each of its alternatives."""
    for branch in part.get("anyOf", [part]):
        yield _resolved(branch, schema)


def _resolved(part: Schema, schema: Schema) -> Schema:
    """The part with a reference followed."""
    if "$ref" in part:
        return schema["$defs"][part["$ref"].removeprefix("#/$defs/")]
    return part


def _known(part: Schema) -> list[str]:
    """The allowed keys of a section."""
    return [*part.get("properties", {}), *part.get("propertyNames", {}).get("enum", [])]


def _expected(part: Schema, schema: Schema) -> str:
    """The expected value in words."""
    return " or ".join(_described(branch) for branch in _branches(part, schema))


def _described(part: Schema) -> str:
    """One alternative of the expected value in words."""
    if "words" in part:
        return str(part["words"])
    if "const" in part:
        return str(part["const"])
    if "enum" in part:
        return f"one of {', '.join(map(str, part['enum']))}"
    named = {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "string": "text",
        "null": "null",
        "array": "a list",
        "object": "a section of keys",
    }[part["type"]]
    limits = [
        f"{words} {part[key]:{'g' if isinstance(part[key], float) else ''}}"
        for key, words in {
            "minimum": "of at least",
            "exclusiveMinimum": "above",
            "maximum": "of at most",
            "exclusiveMaximum": "below",
            "multipleOf": "a multiple of",
            "minItems": "with a length of at least",
        }.items()
        if key in part
    ]
    return " ".join([named, " and ".join(limits)]).rstrip()


def _shown(value: Content) -> str:
    """A value as the user wrote it, or its kind where that would be long."""
    if isinstance(value, dict):
        return "a section of keys"
    if isinstance(value, list):
        return "a list"
    return one_line(
        repr(value) if isinstance(value, str) else json.dumps(value), most=LONGEST_SHOWN
    )
