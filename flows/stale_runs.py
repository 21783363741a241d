"""Flow runs that Prefect records as running although the process and its supervisor both died."""

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


def close_stale_runs() -> None:
    """Mark earlier runs of this flow that did not end as crashed.

    Called only by the run that holds the run lock, so no other run of the flow is in progress.
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
                state = Crashed(message="its process was killed; found by a later run")
                client.set_flow_run_state(run.id, state, force=True)
