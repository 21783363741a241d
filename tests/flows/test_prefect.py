"""Guards the FastAPI bound: under a newer one flows do not run and artifacts answer 422."""

import pytest
from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client


@task(cache_policy=NO_CACHE)
def square(number: int) -> int:
    return number * number


@flow
def mapped() -> list[int]:
    squares = square.map([1, 2, 3]).result()
    create_table_artifact(table={"square": squares}, key="squares")
    return squares


@pytest.mark.e2e
def test_a_mapped_flow_runs_and_its_table_can_be_read_back(prefect_api):
    assert mapped() == [1, 4, 9]

    with get_client(sync_client=True) as client:
        artifacts = client.request("POST", "/artifacts/filter", json={}).json()
    assert [artifact["data"] for artifact in artifacts if artifact["key"] == "squares"] == [
        '{"square": [1, 4, 9]}'
    ]
