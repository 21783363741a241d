"""A study's folder of another schema, with a true seal, is refused in one line before anything reads it."""

import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpred.errors import InvalidInput
from modelpred.studies import CONTENTS, STUDIES
from modelpred.studies.results import StudyResult, read_result, write_result
from tests.studies.whole import whole

OTHER_CELLS = {
    "text": [[1, 2], [0.5, 1.0], [True, False], [["a"], ["b"]], ["predictor", None], [None, None]],
    "number": [["a", "b"], [True, False], [[1], [2]]],
    "flag": [["a", "b"], [0.5, 1.0], [[True], [False]]],
}
OTHER_VALUES = {
    "text": [None, 1, {}, []],
    "number": ["x", True, {}, []],
    "section": [None, "x", 1, []],
}


def read_again(study: str, result: StudyResult) -> StudyResult:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / study
        write_result(result, folder)
        return read_result(folder)


@pytest.mark.parametrize("study", STUDIES)
def test_a_result_with_all_that_is_needed_is_read(study):
    result = whole(study)
    found = read_again(study, result)
    assert found.metrics == result.metrics
    assert found.tables.keys() == result.tables.keys()


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_table_of_another_schema_is_one_line_that_says_what_was_expected(data):
    study = data.draw(st.sampled_from(sorted(CONTENTS)))
    result, needed = whole(study), CONTENTS[study].tables
    name = data.draw(st.sampled_from(sorted(needed)))
    column, kind = data.draw(st.sampled_from(sorted(needed[name].kinds().items())))
    table = result.tables[name]
    cells = data.draw(st.sampled_from([None, *OTHER_CELLS[kind]]))
    changed = table.drop(column) if cells is None else table.with_columns(pl.Series(column, cells))
    with pytest.raises(InvalidInput) as refused:
        read_again(study, StudyResult(result.metrics, {**result.tables, name: changed}))
    said = str(refused.value)
    assert "\n" not in said
    for told in (f"{study}/{name}.parquet", "expected", column, f"dvc repro studies@{study}"):
        assert told in said


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_metrics_of_another_kind_are_one_line(data):
    study = data.draw(
        st.sampled_from([name for name in CONTENTS if CONTENTS[name].metrics.kinds()])
    )
    result, contents = whole(study), CONTENTS[study]
    name, kind = data.draw(
        st.sampled_from(sorted((contents.metrics.kinds() | contents.optional.kinds()).items()))
    )
    optional = name in contents.optional.kinds()
    metrics = dict(result.metrics)
    if not optional and data.draw(st.booleans()):
        del metrics[name]
    else:
        metrics[name] = data.draw(st.sampled_from(OTHER_VALUES[kind]))
    with pytest.raises(InvalidInput, match=name) as refused:
        read_again(study, StudyResult(metrics, result.tables))
    assert "\n" not in str(refused.value)
    assert f"{study}/metrics.json" in str(refused.value)


@pytest.mark.parametrize("study", STUDIES)
def test_a_missing_table_is_refused_unless_it_is_optional(study):
    result = whole(study)
    for name in result.tables:
        others = {other: table for other, table in result.tables.items() if other != name}
        if name in CONTENTS[study].may_lack:
            assert name not in read_again(study, StudyResult(result.metrics, others)).tables
            continue
        with pytest.raises(InvalidInput, match=f"{name}.parquet cannot be used: it is missing"):
            read_again(study, StudyResult(result.metrics, others))


def test_a_skipped_study_needs_nothing():
    skipped = StudyResult({"skipped": "it needs classes"}, {})
    assert read_again("calibration", skipped) == skipped
