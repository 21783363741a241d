"""What schedule.yaml says is what Prefect plans; a mistake in it is one line."""

import pytest
from prefect.client.orchestration import get_client

from flows import schedule
from flows.artifacts import STUDIES


def write(folder, text):
    path = folder / "schedule.yaml"
    path.write_text(text)
    return path


def test_deployments_are_registered_with_their_times_and_again_after_a_change(
    prefect_api, tmp_path, monkeypatch
):
    monkeypatch.chdir(schedule.Path(__file__).parents[2])
    times = []
    for cron in ("30 2 * * 1", "0 3 * * *"):
        path = write(tmp_path, f'timezone: Europe/Berlin\npipeline: {{cron: "{cron}"}}\n')
        monkeypatch.setattr(schedule, "CONFIG", path)
        schedule.register()
        with get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name("pipeline/nightly")
            weekly = client.read_deployment_by_name("evaluation/weekly")
        (planned,) = deployment.schedules
        times.append((planned.schedule.cron, planned.schedule.timezone, deployment.work_pool_name))
    assert weekly.parameters == {"last": 4, "study": "valuation"}
    assert times == [
        ("30 2 * * 1", "Europe/Berlin", "modelpred"),
        ("0 3 * * *", "Europe/Berlin", "modelpred"),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("timezone: Atlantis/Poseidonis", "timezone: .*Europe/Berlin, got 'Atlantis/Poseidonis'"),
        ("pipelin: {cron: '* * * * *'}", "pipelin: Extra inputs are not permitted"),
        ("pipeline: {cron: 'at three'}", "pipeline.cron: .*five cron fields.*'at three'"),
        ("pipeline: [", "schedule.yaml"),
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
