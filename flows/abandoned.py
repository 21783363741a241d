"""Runs that Prefect still takes for running although their process is gone: killed together with what watched them."""

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.states import Crashed


def close_abandoned_runs() -> None:
    """Marks earlier runs of this flow that never ended as crashed.

    Called by the run that holds the lock of flows/alone.py: no other run of the flow is at work then.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    this = context.flow_run
    with get_client(sync_client=True) as client:
        running = client.read_flow_runs(
            flow_filter=FlowFilter(id=FlowFilterId(any_=[this.flow_id])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING]))
            ),
        )
        for run in running:
            before = run.start_time and this.start_time and run.start_time < this.start_time
            if run.id != this.id and before:
                state = Crashed(message="its process was killed; a later run found it gone")
                client.set_flow_run_state(run.id, state, force=True)
