"""/v1/images/{id}/events: a job as it develops, as server-sent events."""

import json
import time
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Response
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event

from app.api.deps import Services, ServicesDep, TenantDep
from app.api.event_stream import EventKind, News, Told, news
from app.api.links import Links, LinksDep
from app.api.records import JobId, find_record
from app.api.views import job_view, progress_view
from app.errors import documented
from app.jobs.errors import QueueError
from app.jobs.schema import TERMINAL_STATES, JobRecord

router = APIRouter(prefix="/v1/images", tags=["images"])

KEEP_ALIVE_EVERY_S = 15.0
UNBUFFERED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # the second is for nginx
_PROGRESS_EVERY_S = 0.25


@router.get(
    "/{job_id}/events",
    summary="Follow a job",
    response_class=Response,
    responses={
        **documented(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE),
        200: {"description": "Server-sent events.", "content": {"text/event-stream": {}}},
        204: {"description": "The job has ended, and the client with this Last-Event-ID knows: do not come back."},
    },
)
async def events(
    job_id: JobId,
    services: ServicesDep,
    tenant: TenantDep,
    links: LinksDep,
    last_event_id: Annotated[str, Header(description="The `id` of the last event that came: go on from there.")] = "",
) -> Response:
    """Events: `status`, with the job as `GET` shows it, whenever its status is another; `progress`, as in the job, at
    most four times a second; `preview`, with an image's `index`, the `step` it shows and the `url` of the bytes, which
    is another for each step so that a browser loads it anew. The first ones tell what is now. The stream ends after the
    status completed, failed or canceled; when it ends before, come back with the last `id` as `Last-Event-ID`.
    """
    record = await find_record(services, tenant, job_id)
    told = Told.parse(last_event_id)
    if record.state in TERMINAL_STATES and told.is_current(record):
        return Response(status_code=HTTPStatus.NO_CONTENT)
    return EventSourceResponse(_stream(services, links, record, told), headers=UNBUFFERED)


async def _stream(services: Services, links: Links, record: JobRecord, told: Told) -> AsyncIterator[bytes]:
    quiet_since_s = time.monotonic()
    progress_at_s = float("-inf")
    held_back = False
    with services.changes.watch(record.job.tenant, record.job.id) as waiter:
        while True:
            next_s = quiet_since_s + KEEP_ALIVE_EVERY_S
            if held_back:
                next_s = min(next_s, progress_at_s + _PROGRESS_EVERY_S)
            try:
                record = await waiter.next(max(0.0, next_s - time.monotonic())) or record
            except QueueError:
                return  # the answer has begun: whoever comes back is told what is wrong
            now_s = time.monotonic()
            held_back = now_s < progress_at_s + _PROGRESS_EVERY_S
            for each in news(record, told, only_status=held_back):
                told = each.told
                yield _event(each, record, links, services.settings.keep_pictures_s)
                quiet_since_s = now_s
                if each.kind is not EventKind.STATUS:
                    progress_at_s = now_s
            if record.state in TERMINAL_STATES:
                return
            if now_s >= quiet_since_s + KEEP_ALIVE_EVERY_S:
                yield KEEPALIVE_COMMENT
                quiet_since_s = now_s


def _event(each: News, record: JobRecord, links: Links, keep_pictures_s: float | None) -> bytes:
    match each.kind:
        case EventKind.STATUS:
            data = job_view(record, links, keep_pictures_s).model_dump_json()
        case EventKind.PROGRESS:
            data = progress_view(record).model_dump_json()
        case EventKind.PREVIEW:
            step = each.told.previews[each.index]
            url = links.picture("preview", record.job.tenant, record.job.id, each.index)
            data = json.dumps({"index": each.index, "step": step, "url": f"{url}&step={step}"})
    return format_sse_event(event=each.kind, data_str=data, id=str(each.told))
