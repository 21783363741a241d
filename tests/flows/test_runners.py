"""The runner that trains the shards, and one line where it cannot be used."""

import pytest
from prefect.task_runners import ThreadPoolTaskRunner

from flows import runners
from modelpred.errors import InvalidInput


def test_by_default_there_is_a_thread_for_each_device(monkeypatch):
    monkeypatch.delenv("MODELPRED_RUNNER", raising=False)
    monkeypatch.setenv("MODELPRED_DEVICES", "cpu:3")
    runner = runners.runner()
    assert isinstance(runner, ThreadPoolTaskRunner)
    assert runners.devices() == ["cpu:0", "cpu:1", "cpu:2"]


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"MODELPRED_RUNNER": "slurm"}, "must be threads, dask or ray, got 'slurm'"),
        ({"MODELPRED_RUNNER": "dask"}, "MODELPRED_CLUSTER names no cluster"),
        (
            {
                "MODELPRED_RUNNER": "ray",
                "MODELPRED_CLUSTER": "127.0.0.1:1",
                "MODELPRED_DEVICES": "cpu:4",
            },
            "on a cluster MODELPRED_DEVICES must be cpu or cuda, got 'cpu:4'",
        ),
    ],
)
def test_a_runner_that_cannot_be_used_is_one_line(monkeypatch, environment, told):
    for name in ("MODELPRED_RUNNER", "MODELPRED_CLUSTER", "MODELPRED_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInput, match=told):
        runners.runner()


def test_an_extra_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setenv("MODELPRED_RUNNER", "dask")
    monkeypatch.setenv("MODELPRED_CLUSTER", "tcp://127.0.0.1:1")
    monkeypatch.delenv("MODELPRED_DEVICES", raising=False)
    monkeypatch.setitem(__import__("sys").modules, "prefect_dask", None)
    with pytest.raises(InvalidInput, match=r"pip install 'modelpred\[dask\]'"):
        runners.runner()
