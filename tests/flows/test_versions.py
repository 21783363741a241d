"""Comparing versions: a revision that cannot be used is named, and the others are compared."""

from contextlib import contextmanager
from types import SimpleNamespace

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows import versions
from modelpred import registry
from modelpred.errors import InvalidInput
from modelpred.studies import STUDIES
from modelpred.studies.results import StudyResult
from tests.projects import write_params

ENDS = ("read", "not there", "not for this study")


@contextmanager
def revisions_that(ends, place):
    """Revisions by name that can be read, cannot, or whose study refuses; no data is needed."""

    def fetch(revision, stages, *, into):
        if ends[revision] == "not there":
            raise InvalidInput(f"{revision}: git has no such revision")
        return into

    def result_of(study, config, *, tolerance, progress, artifacts):
        if [*ends.values()][int(artifacts.name)] == "not for this study":
            raise InvalidInput("valuation needs a test set")
        values = pl.DataFrame({"row_id": ["a", "b", "c", "d"], "value": [1.0, 2.0, 3.0, 4.0]})
        return StudyResult({}, {"values": values})

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(versions, "fetch", fetch)
        patch.setattr(versions, "result_of", result_of)
        patch.setattr(versions, "_version", lambda name, _: SimpleNamespace(dataset=name))
        patch.setattr(versions, "cross_scores", lambda _, **__: pl.DataFrame())
        patch.setattr(
            versions,
            "row_changes",
            lambda before, after: pl.DataFrame({"change": [before + after]}),
        )
        patch.setattr(versions, "headline", lambda *_: {})
        yield


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    place = tmp_path_factory.mktemp("versions")
    write_params(place, {})
    return place


@given(ends=st.lists(st.sampled_from(ENDS), min_size=1, max_size=5))
def test_every_revision_is_compared_or_named_with_the_reason(project, ends):
    named = {f"v{number}": end for number, end in enumerate(ends)}
    read = tuple(name for name, end in named.items() if end == "read")
    with revisions_that(named, project):
        if not read:
            with pytest.raises(InvalidInput, match="none of the revisions can be read: v0: "):
                versions.compare("valuation", list(named), copies=project)
            return
        # A revision that is asked for twice is read once.
        found = versions.compare("valuation", [*named, "v0"], copies=project)
    assert found.revisions == read
    reasons = {"not there": "git has no such revision", "not for this study": "needs a test set"}
    assert set(found.missing) == set(named) - set(read)
    for name, reason in found.missing.items():
        assert reason.startswith(f"{name}: ")
        assert reasons[named[name]] in reason
    assert [drift.shared for drift in found.drifts] == [4] * (len(read) - 1)
    assert found.changes.height == len(read) - 1


def test_an_unknown_study_is_refused_with_those_that_are_known(project, monkeypatch):
    monkeypatch.chdir(project)
    with pytest.raises(InvalidInput, match=f"unknown study 'worths'; known: .*{[*STUDIES][-1]}"):
        versions.run("worths", ["workspace"])


def test_a_failure_of_mlflow_is_a_warning(tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise ConnectionError("the tracking server is gone")

    monkeypatch.setattr(registry, "log_comparison", fail)
    scores = pl.DataFrame({"model_of": ["a"], "test_rows_of": ["a"], "loss": [0.5]})
    found = versions.Comparison(("a",), {}, {}, scores, pl.DataFrame(), ())
    versions._log("valuation", found, tmp_path)
    told = "versions: WARNING: written, but not logged to MLflow: the tracking server is gone\n"
    assert capsys.readouterr().err == told
