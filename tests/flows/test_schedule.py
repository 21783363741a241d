"""What schedule.yaml says is what Prefect plans; a mistake in it is one line."""

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect.server.schemas.schedules import CronSchedule
from pydantic import ValidationError

from flows import schedule
from modelpred.studies import STUDIES


def write(folder, text):
    path = folder / "schedule.yaml"
    path.write_text(text)
    return path


def test_deployments_have_the_times_of_the_file(tmp_path):
    text = 'timezone: Europe/Berlin\npipeline: {cron: "30 2 * * 1"}\nevaluation: {last: 2}\n'
    planned = schedule.deployments(schedule.read_schedule(write(tmp_path, text)))
    assert list(planned) == [
        "pipeline/nightly: 30 2 * * 1 (Europe/Berlin)",
        "evaluation/weekly: not scheduled",
    ]
    nightly, weekly = planned.values()
    (times,) = nightly.schedules
    assert (times.schedule.cron, times.schedule.timezone) == ("30 2 * * 1", "Europe/Berlin")
    assert weekly.parameters == {"last": 2, "study": "valuation"}
    assert weekly.schedules == []


@given(st.lists(st.sampled_from(["*", "0", "3", "59", "60", "*/5", "1-5", "L", "x"]), max_size=7))
@settings(max_examples=60, deadline=None)
def test_only_five_fields_that_the_scheduler_can_run_are_a_time(fields):
    """Whatever is accepted has a next time a minute or more after the one before."""
    try:
        schedule.Recurring(cron=" ".join(fields))
    except ValueError:
        return
    assert len(fields) == 5
    cron = CronSchedule(cron=" ".join(fields))
    first, second = asyncio.run(cron.get_dates(n=2, start=datetime.now(UTC)))
    assert (second - first).total_seconds() >= 60


names = st.sampled_from(sorted(STUDIES)) | st.text(max_size=12)
changed_names = st.sampled_from(sorted(STUDIES)).map(str.upper) | st.sampled_from(
    sorted(STUDIES)
).map(" {}".format)


@given(names | changed_names)
@settings(max_examples=100, deadline=None)
def test_the_study_of_an_evaluation_is_one_that_exists(name):
    if name in STUDIES:
        assert schedule.Evaluation(study=name).study == name
        return
    with pytest.raises(ValidationError, match="unknown study"):
        schedule.Evaluation(study=name)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("timezone: Atlantis/Poseidonis", "timezone: .*Europe/Berlin, got 'Atlantis/Poseidonis'"),
        ("pipelin: {cron: '* * * * *'}", "pipelin: Extra inputs are not permitted"),
        ("pipeline: {cron: 'at three'}", "pipeline.cron: .*five cron fields.*'at three'"),
        ("pipeline: {cron: '0 3 31 2 *'}", "of a time that comes"),
        (
            "evaluation: {study: valuations}",
            "evaluation.study: .*'valuations'; known: edits, lds, ",
        ),
        ("pipeline: [", "schedule.yaml"),
        ("- a", "schedule.yaml"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(tmp_path, text, told):
    with pytest.raises(SystemExit, match=told) as ended:
        schedule.read_schedule(write(tmp_path, text))
    assert len(str(ended.value).splitlines()) == 1


def test_the_file_that_ships_is_one():
    config = schedule.read_schedule(schedule.Path(__file__).parents[2] / "schedule.yaml")
    assert (config.pipeline.cron, config.evaluation.cron) == ("0 3 * * *", "0 5 * * 0")
    assert config.evaluation.study in STUDIES
