"""The files around the code agree with it and with each other."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.oldest import LOWEST, oldest, requirements

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
# Links of Markdown to files, without an address of the web.
LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]*)(#[^)\s]*)?\)")


def pages():
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob(".github/**/*.md")]
    return [path.relative_to(ROOT).as_posix() for path in sorted(files)]


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_jobs_of_workflows_only_call_make_targets_that_exist(path):
    content = yaml.safe_load(path.read_text())
    for name, job in content["jobs"].items():
        commands = [step["run"] for step in job["steps"] if "run" in step]
        assert len(commands) == 1, name
        make, target, *rest = commands[0].replace("${{ matrix.target }}", "MATRIX").split()
        named = job["strategy"]["matrix"]["target"] if target == "MATRIX" else [target]
        assert make == "make"
        assert set(named) <= TARGETS, name
        assert rest == ["PYTHON=python"], name
        assert job["timeout-minutes"] <= 120


def test_every_target_is_phony_and_explained():
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())
    explained = "".join(line for line in makefile.splitlines() if line.startswith("#"))

    assert phony == TARGETS
    assert all(target in explained for target in TARGETS)


def test_contributing_lists_the_targets():
    page = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
    assert sorted(set(re.findall(r"`make ([a-z0-9-]+)`", page))) == sorted(TARGETS - {"run"})


def test_the_page_on_installing_names_what_is_installed():
    page = (ROOT / "docs" / "installing.md").read_text()
    [named] = re.findall(r"needs (NumPy, .*?)\. It contains", page, re.DOTALL)
    written = {"pytorch": "torch", "jinja": "jinja2"}
    words = [word.lower() for word in re.split(r",\s+|\s+and\s+", named)]
    needed = [re.match(r"[\w-]+", each)[0] for each in PROJECT["dependencies"]]
    assert sorted(written.get(word, word) for word in words) == sorted(needed)
    listed = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)))
    assert set(PROJECT["optional-dependencies"]) <= set(listed)


def test_hooks_are_local():
    content = yaml.safe_load((ROOT / ".github" / "pre-commit-config.yaml").read_text())
    assert [repository["repo"] for repository in content["repos"]] == ["local"]
    assert all(hook["language"] == "system" for hook in content["repos"][0]["hooks"])


def test_the_citation_names_version_licence_and_the_paper_of_the_readme():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    paper = citation["preferred-citation"]
    readme = (ROOT / "README.md").read_text()

    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert paper["title"] in readme
    assert (
        " and ".join(
            f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]
        )
        in readme
    )


def test_issue_forms_ask_for_something():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        content = yaml.safe_load(path.read_text())
        if path.stem == "config":
            continue
        assert {"name", "description", "body"} <= set(content)
        identifiers = [field["id"] for field in content["body"]]
        assert len(set(identifiers)) == len(identifiers) > 0


@pytest.mark.parametrize("page", pages())
def test_links_between_pages_lead_somewhere(page):
    path = ROOT / page
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(), flags=re.DOTALL)
    for target, anchor in LINK.findall(prose):
        found = (path.parent / target).resolve() if target else path
        assert found.exists(), f"{page}: {target}"
        if anchor and found.suffix == ".md":
            assert anchor[1:] in anchors(found), f"{page}: {target}{anchor}"


def test_oldest_versions_are_the_lower_bounds():
    direct = [requirement for requirement in requirements(PROJECT) if ">=" in requirement]
    assert all(LOWEST.match(requirement) for requirement in direct)
    versions = dict(line.split("==") for line in oldest(PROJECT))

    assert {LOWEST.match(requirement)["name"] for requirement in direct} == set(versions)
    assert versions["numpy"] == "2.0.*"
    assert versions["jaxtyping"] == "0.3.11"
    assert versions["torch"] == "2.9.*"
    given = oldest(PROJECT, given=["torch==2.13.0"])
    assert {**versions, "torch": "2.13.0"} == dict(line.split("==") for line in given)


@pytest.mark.parametrize("code", ["import modelpred.api", "from modelpred.cli import app"])
def test_importing_warns_of_nothing(code):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_page_is_in_the_contents():
    contents = (ROOT / "docs" / "index.md").read_text()
    listed = re.findall(r"^([a-z-]+)$", contents, re.MULTILINE)
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}

    assert sorted(listed) == sorted(pages)


def test_the_reference_covers_every_package_with_public_names():
    reference = (ROOT / "docs" / "api.md").read_text()
    documented = re.findall(r"^\.\. automodule:: modelpred\.(\w+)$", reference, re.MULTILINE)
    public = {
        path.parent.name
        for path in (ROOT / "modelpred").glob("*/__init__.py")
        if "__all__" in path.read_text()
    }

    assert public - {"report"} <= set(documented)  # the report is the pipeline's
    assert all(
        (ROOT / "modelpred" / name).is_dir() or (ROOT / "modelpred" / f"{name}.py").is_file()
        for name in documented
    )
