"""Targets of the user's own code, named by import path: `models.nets:target`.

Importing a file runs it. So only params.yaml and the jobs made from it name such paths: a folder of a
predictor, a registered version or a saved fit that names one is refused (`target_model`).

A target is rebuilt wherever it is trained. Its settings hold `code`, the SHA-256 of the file and of the
files beside it that it imports, so that no other code passes for it, and shards of other code are not used.
"""

import ast
import hashlib
import importlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from modelpred.errors import InvalidInput
from modelpred.targets.torch_target import TorchTarget

IMPORT_PATH = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
OURS = ("modelpred", "flows")
_imported: dict[str, str] = {}  # digests of the code that this process has imported


def is_import_path(name: str) -> bool:
    """Whether a target's name is an import path."""
    return re.match(IMPORT_PATH, name) is not None


def imported_target(path: str, settings: Mapping[str, Any]) -> TorchTarget:
    """The target at an import path, with these settings. This runs the code of its file.

    Args:
        path: module and name: of a TorchTarget, or of a function that returns one.
        settings: change those of the TorchTarget, or are the arguments of the function; `code`, where it
            is given, is the digest that the code must have.

    Raises:
        InvalidInput: there is no such target, its code is another one, or a setting is wrong.
    """
    module, _, name = path.partition(":")
    files = defining_files(path)
    code = _digest(files)
    options = {key: value for key, value in settings.items() if key != "code"}
    if settings.get("code", code) != code:
        raise InvalidInput(
            f"{path}: {files[0]} or a file that it imports is not the one of the fingerprint; "
            "copy the code to this machine, or run the targets stage again"
        )
    found = getattr(_module(path, module, files[0], code), name, None)
    if isinstance(found, TorchTarget):
        own = found.with_settings(**options)
        return own.of_code(path, code, options=None)
    if not callable(found):
        raise InvalidInput(
            f"{path}: {files[0]} has {'no' if found is None else 'another kind of'} {name}; expected a "
            "TorchTarget, or a function that returns one"
        )
    try:
        own = found(**options)
    except TypeError as error:
        raise InvalidInput(f"{path} does not take these settings ({error})") from error
    if not isinstance(own, TorchTarget):
        raise InvalidInput(f"{path}() gives {type(own).__name__}; expected a TorchTarget")
    return own.of_code(path, code, options=json.dumps(options, sort_keys=True))


def defining_files(path: str) -> list[Path]:
    """The file of an import path, then the files below the same folder that it imports.

    Raises:
        InvalidInput: there is no such file.
    """
    module = path.partition(":")[0]
    for root in dict.fromkeys((Path.cwd(), *(Path(each) for each in sys.path if each))):
        if (first := _file(root, module)) is not None:
            return [first, *sorted(_imports(root.absolute(), module, first) - {first})]
    raise InvalidInput(
        f"{path}: there is no module {module} below {Path.cwd()} or on Python's path; expected "
        "module:name, such as models.nets:target for models/nets.py"
    )


def _file(root: Path, module: str) -> Path | None:
    place = root.absolute().joinpath(*module.split("."))
    files = (place.with_suffix(".py"), place / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def _imports(root: Path, module: str, first: Path) -> set[Path]:
    """All files below the root that importing the module runs, as their texts say."""
    waiting, seen = [(module, first)], {first}
    while waiting:
        name, file = waiting.pop()
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        for each in {*_parents(name), *_named(file, package)}:
            other = None if each.partition(".")[0] in OURS else _file(root, each)
            if other is not None and other not in seen:
                seen.add(other)
                waiting.append((each, other))
    return seen


def _parents(module: str) -> Iterator[str]:
    while module := module.rpartition(".")[0]:
        yield module


def _named(file: Path, package: str) -> Iterator[str]:
    """Modules that a file may import, with their packages."""
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except (SyntaxError, ValueError):  # importing it says so
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            yield from (name, *_parents(name))


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _module(path: str, module: str, file: Path, code: str) -> ModuleType:
    """The imported module, which must be of this file as it is now."""
    if _imported.setdefault(module, code) != code:
        raise InvalidInput(
            f"{path}: {file} has changed since this process imported it; start again"
        )
    root = file.parents[module.count(".") + (file.name == "__init__.py")]
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        found = importlib.import_module(module)
    except Exception as error:  # the user's code may raise anything
        _imported.pop(module)
        said = " ".join(str(error).split())[:200]
        raise InvalidInput(
            f"{path}: importing {file} fails ({type(error).__name__}: {said})"
        ) from error
    if Path(str(found.__file__)).resolve() != file.resolve():
        raise InvalidInput(f"{path}: {module} is also the name of {found.__file__}; rename {file}")
    return found
