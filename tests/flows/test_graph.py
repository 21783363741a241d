"""dvc.yaml lists exactly the code that each stage imports and the params that it uses."""

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from flows import artifacts, runners
from flows.artifacts import STAGES
from modelpred.params import Params, read_params
from modelpred.studies import STUDIES
from modelpred.targets.store import train_block
from tests.fixtures import without_drawings
from tests.projects import ROOT
from tests.test_pipeline import TINY

GRAPH = {
    name: stage.get("do", stage)
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items()
}
CODE = ("flows", "modelpred")
PARAMS_READER = "modelpred.params"  # imports the sections of all stages, and no stage's work


def module_file(name: str) -> Path | None:
    path = ROOT.joinpath(*name.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def is_type_checking(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def statements(node: ast.AST, *, running: bool) -> Iterator[ast.AST]:
    """The nodes of a module that run, or those that only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            if not running:
                yield from ast.walk(child)
            continue
        if running:
            yield child
        yield from statements(child, running=running)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def lazy_names(package: str) -> dict[str, str]:
    """Names that a package loads when they are asked for, and the modules that hold them."""
    path = module_file(package)
    if path is None or "def __getattr__" not in path.read_text():
        return {}
    return {
        alias.name: node.module or ""
        for node in statements(tree(path), running=False)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def modules_of_studies(call: ast.Call) -> set[str]:
    """What `import_module(f"modelpred.studies.{study}")` imports: a module for each study."""
    match call.args:
        case [ast.JoinedStr(values=[ast.Constant(value=str(package)), ast.FormattedValue()])]:
            return {f"{package}{study}" for study in STUDIES}
    raise AssertionError(f"cannot tell what line {call.lineno} imports")


@cache
def imported(path: Path) -> frozenset[str]:
    """Modules of this project that a file imports, at once or inside its functions."""
    names: set[str] = set()
    for node in statements(tree(path), running=True):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            base = node.module or ""
            for alias in node.names:
                names |= {base, f"{base}.{alias.name}", lazy_names(base).get(alias.name, base)}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_module":
            names |= modules_of_studies(node)
    return frozenset(name for name in names if name.split(".")[0] in CODE)


@cache
def closure(stage: str) -> frozenset[str]:
    """Files that a stage imports, relative to the project, with the packages that they lie in."""
    waiting, seen = {f"flows.{stage}"}, {}
    while waiting:
        parts = waiting.pop().split(".")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            path = module_file(name)
            if path is not None and path not in seen:
                seen[path] = name
                waiting |= set() if name == PARAMS_READER else imported(path)
    return frozenset(path.relative_to(ROOT).as_posix() for path in seen)


def listed_code(stage: str) -> list[str]:
    return [path for path in GRAPH[stage]["deps"] if path.split("/")[0] in CODE]


def covers(listed: str, path: str) -> bool:
    return path == listed or path.startswith(f"{listed}/")


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_the_code_that_the_stage_imports(stage):
    listed, used = listed_code(stage), closure(stage)
    assert [path for path in sorted(used) if not any(covers(one, path) for one in listed)] == []
    assert [one for one in listed if not any(covers(one, path) for path in used)] == []


LOADED = """
import importlib, json, sys, types
found = {}
for stage in sys.argv[1:]:
    sys.modules["modelpred.params"] = params = types.ModuleType("modelpred.params")
    params.read_params = None
    importlib.import_module(f"flows.{stage}")
    del sys.modules["modelpred.params"]
    found[stage] = [name for name in sys.modules if name.split(".")[0] in ("flows", "modelpred")]
    for name in found[stage]:
        del sys.modules[name]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def loaded():
    """Modules of this project that a process loads by importing each stage, without those of params.py."""
    answer = subprocess.run(
        [sys.executable, "-c", LOADED, *STAGES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(answer.stdout)


@pytest.mark.parametrize("stage", STAGES)
def test_whatever_is_loaded_is_in_the_closure(stage, loaded):
    files = {module_file(name) for name in loaded[stage]} - {None}
    assert f"flows/{stage}.py" in {path.relative_to(ROOT).as_posix() for path in files}
    assert {path.relative_to(ROOT).as_posix() for path in files} <= closure(stage)


class Uses:
    """Records which fields of these params are read, as `section.field`."""

    WHOLE = ("model_dump", "model_dump_json", "model_copy", "__dict__")

    def __init__(self, params: Params, patch: pytest.MonkeyPatch) -> None:
        self.found: set[str] = set()
        sections = {name: getattr(params, name) for name in Params.model_fields}
        self._names = {id(section): name for name, section in sections.items()}
        self._kept = params
        for section in sections.values():
            patch.setattr(type(section), "__getattribute__", self._recorder(), raising=False)

    def _recorder(self):
        def read(section: BaseModel, name: str) -> object:
            place = self._names.get(id(section))
            fields = object.__getattribute__(section, "__class__").model_fields
            if place is not None and name in fields:
                self.found.add(f"{place}.{name}")
            elif place is not None and name in self.WHOLE:
                self.found |= {f"{place}.{field}" for field in fields}
            return object.__getattribute__(section, name)

        return read


def expanded(listed: list[str]) -> dict[str, set[str]]:
    """The fields under each key that dvc.yaml lists."""
    fields = {
        section: set(field.annotation.model_fields)
        for section, field in Params.model_fields.items()
    }
    return {
        key: {f"{key}.{field}" for field in fields[key]} if "." not in key else {key}
        for key in listed
    }


def fresh_settings(config: BaseModel) -> dict[str, object]:
    return type(config)().model_dump(mode="json")


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    """The fields of params.yaml that each stage read in a small project, by stage or study."""
    place = tmp_path_factory.mktemp("recorded")
    (place / "data").mkdir()
    (place / "params.yaml").write_text(yaml.safe_dump(TINY, sort_keys=False))
    found: dict[str, set[str]] = {}

    def in_this_process(jobs, *, finished):
        del finished
        for job in jobs:
            train_block(job)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.delenv("MODELPRED_STORE", raising=False)
        patch.setattr(runners, "train_blocks", in_this_process)
        without_drawings(patch)
        for stage in STAGES:
            module = importlib.import_module(f"flows.{stage}")
            for study in STUDIES if stage == "studies" else ("",):
                with pytest.MonkeyPatch.context() as inner:
                    uses = Uses(params := read_params(artifacts.PARAMS), inner)
                    inner.setattr(module, "read_params", lambda _, params=params: params)
                    # The record of all settings is no use of them.
                    inner.setattr(module, "settings_of", fresh_settings, raising=False)
                    module.run(study) if study else module.main()
                found[study or stage] = uses.found
    return found


def listed_params(name: str) -> list[str]:
    stage = name if name in GRAPH else "studies"
    return [key.replace("${key}", name) for key in GRAPH[stage]["params"]]


@pytest.mark.parametrize("name", [*STAGES[:4], *STUDIES, "report"])
def test_params_are_those_that_the_stage_uses(name, used):
    listed = expanded(listed_params(name))
    assert used[name] - set().union(*listed.values()) == set()
    sections = {key: fields for key, fields in listed.items() if "." not in key}
    assert [key for key, fields in sections.items() if not fields & used[name]] == []


@pytest.mark.parametrize("name", [*STAGES[:4], *STUDIES, "report"])
def test_each_field_under_a_listed_key_is_read_somewhere_in_its_code(name, used):
    """A run takes one branch only: what another branch reads stands in the code as an attribute."""
    stage = name if name in GRAPH else "studies"
    read = {
        node.attr
        for path in closure(stage)
        for node in ast.walk(tree(ROOT / path))
        if isinstance(node, ast.Attribute)
    }
    fields = set().union(*expanded(listed_params(name)).values())
    assert {field for field in fields - used[name] if field.split(".")[1] not in read} == set()
