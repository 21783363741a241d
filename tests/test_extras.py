"""The library works without the packages of any extra; what needs one says in one line which."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.artifacts import STAGES
from modelpred.extras import EXTRA_OF, EXTRAS

ROOT = Path(__file__).parents[1]
PIPELINE = frozenset(EXTRAS["pipeline"])

# Runs each line of code in a fork of a process that has imported the command, the library, and the largest
# packages that it always brings, while those of the extras could not be imported.
FORKS = """
import json, os, sys, traceback
from importlib.machinery import PathFinder
import modelpred.cli

hidden, find = json.loads(sys.stdin.readline()), PathFinder.find_spec

def find_installed(name, path=None, target=None):
    return None if name.partition(".")[0] in hidden else find(name, path, target)

PathFinder.find_spec = find_installed
import matplotlib.figure, pyarrow.parquet, scipy.stats, sklearn.linear_model, torch
import modelpred.api, modelpred.params
for line in sys.stdin:
    code, hidden = json.loads(line)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(write, 1), os.dup2(write, 2)
        status = 0
        try:
            exec(code, {})
        except SystemExit as end:
            status = 1 if isinstance(end.code, str) else end.code or 0
            if isinstance(end.code, str):
                print(end.code)
        except ImportError as error:
            status = 1
            print(error) if type(error).__name__ == "MissingExtra" else traceback.print_exc()
        except BaseException:
            status = 99
            traceback.print_exc()
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)
    os.close(write)
    with os.fdopen(read) as said:
        text = said.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([status, text]), flush=True)
"""


def command(*words):
    return f"import sys; sys.argv = {['modelpred', *words]!r}; modelpred_cli = __import__('modelpred.cli').cli; modelpred_cli.run()"


def program(module):
    return f"import runpy; runpy.run_module('flows.{module}', run_name='__main__')"


# What a person may run, and the modules of extras that it uses.
USES = {
    **{
        command("registry", *words): frozenset({"mlflow"})
        for words in (
            ("list",),
            ("show", "a"),
            ("promote", "a", "1"),
            ("rollback", "a"),
            ("rebuild",),
        )
    },
    command("serve", "a"): frozenset({"mlflow", "starlette", "uvicorn"}),
    command("explore", "a"): frozenset({"fastapi", "starlette", "uvicorn"}),
    command("check", "openml:adult", "--label", "class"): frozenset({"pandas"}),
    **{program(name): PIPELINE for name in ("publish", "pipeline", "schedule", "versions", "grid")},
    "from modelpred.registry import publish": frozenset({"mlflow"}),
    "from modelpred.targets.remote import UrlStore; UrlStore('s3://a/b')": frozenset({"s3fs"}),
    "import modelpred.serving": frozenset({"starlette"}),
    "import modelpred.page": frozenset({"fastapi", "starlette", "uvicorn"}),
}
# Needs no extra: input in, one line or an answer out.
FREE = (
    command("--version"),
    command("check-params"),
    command("summary"),
    *(program(name) for name in (*STAGES, "run")),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A function: exit status and output of code where some modules cannot be imported."""
    folder = tmp_path_factory.mktemp("empty")
    server = subprocess.Popen(
        [sys.executable, "-c", FORKS],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None

    server.stdin.write(json.dumps(sorted(EXTRA_OF)) + "\n")

    def answer(code, hidden):
        server.stdin.write(json.dumps([code, sorted(hidden)]) + "\n")
        server.stdin.flush()
        status, said = json.loads(server.stdout.readline())
        assert list(folder.iterdir()) == []
        return status, said

    yield answer
    server.stdin.close()
    server.wait(timeout=20)
    server.stdout.close()


@st.composite
def uses_without_a_package(draw):
    code = draw(st.sampled_from(list(USES)))
    missing = draw(st.sets(st.sampled_from(sorted(USES[code])), min_size=1))
    return code, missing | draw(st.sets(st.sampled_from(sorted(EXTRA_OF))))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(case=uses_without_a_package())
def test_a_missing_package_is_one_line_that_names_its_extra(run, case):
    code, hidden = case

    status, said = run(code, hidden)

    assert status == 1, said
    assert len(said.splitlines()) == 1, said
    assert "pip install 'modelpred[" in said
    named = said.partition("[")[2].partition("]")[0].split(",")
    assert set(named) <= {EXTRA_OF[module] for module in USES[code] & hidden}
    missing = said.partition(" not installed")[0]
    assert all(
        any(module in missing for module in USES[code] & hidden if EXTRA_OF[module] == extra)
        for extra in named
    )


@pytest.mark.parametrize("code", FREE)
def test_what_needs_no_extra_does_not_miss_one(run, code):
    status, said = run(code, set(EXTRA_OF))

    assert status in (0, 1)
    assert "Traceback" not in said
    assert "not installed" not in said


def test_the_library_fits_and_answers_without_any_extra(run):
    code = (
        "import numpy as np; from modelpred import ModelPred\n"
        "X = np.random.default_rng(0).normal(size=(40, 3)); y = [str(x > 0) for x in X[:, 0]]\n"
        "mp = ModelPred(target='logistic', subsets=100).fit(X, y)\n"
        "print(mp.without([3]).compare()); mp.values(X, y); mp.predictive(X); mp.suspects()\n"
    )

    status, said = run(code, set(EXTRA_OF))

    assert status == 0, said
    assert "parameters" in said


def test_importing_the_package_imports_nothing_heavy():
    script = "import sys, modelpred; print(*{m.split('.')[0] for m in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()

    assert not {"torch", "numpy", "polars", "pyarrow", "scipy", "sklearn"} & set(loaded)


def test_modules_of_extras_are_those_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {
        extra: {
            requirement.partition(">")[0].replace("-", "_").lower() for requirement in requirements
        }
        for extra, requirements in project["optional-dependencies"].items()
        if extra not in ("dev", "docs")
    }
    assert set(named) == set(EXTRAS)
    brought = {"dask": {"dask"}}  # by prefect-dask
    for extra, modules in EXTRAS.items():
        listed = named[extra] | brought.get(extra, set())
        assert set(modules) <= listed, extra
        assert listed - {"modelpred[pipeline]", "modelpred[openml]", "uvicorn"} <= set(modules)
