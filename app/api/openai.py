"""/v1/images/generations: OpenAI's images API, as its clients and those of LiteLLM and LangChain speak it.

https://platform.openai.com/docs/api-reference/images/create
"""

import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.api.accept import Asker, AskerDep, accept
from app.api.deps import Services, ServicesDep
from app.api.events import KEEP_ALIVE_EVERY_S, UNBUFFERED
from app.api.pictures import read_picture
from app.api.records import find_record
from app.api.schemas import ALIASES, ImageRequest
from app.api.synchronous import ERRORS, canceled_if_given_up, draw, finished
from app.api.views import job_view
from app.api.waiting import looks
from app.errors import ApiError, ClientLeftError, error_body
from app.jobs.schema import Advice, ImageJob, JobRecord, OutputFormat
from app.jobs.store import ImageNotStoredError, preview_path

router = APIRouter(prefix="/v1/images", tags=["compatible with other APIs"])


class OpenAIImageRequest(ImageRequest):
    """OpenAI's request, and all fields of `POST /v1/images` beside them. Fields that are neither are ignored."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": []})

    response_format: Literal["url", "b64_json"] | None = Field(
        default=None, description="Give each image as this only; none: as both."
    )
    stream: bool = Field(default=False, description="Answer with server-sent events.")
    partial_images: int = Field(
        default=0, ge=0, le=3, description="With `stream`: most previews of each image; fewer where it is quick."
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_out_the_rest(cls, data: Any) -> Any:
        # Runs before ImageRequest's own, which refuses names that it does not know.
        if not isinstance(data, dict):
            return data
        known = {
            name: value
            for name, value in data.items()
            if value is not None and (name in cls.model_fields or name in ALIASES)
        }
        if known.get("size") == "auto":
            del known["size"]
        # OpenAI's default, which its clients send with png too: there it changes nothing.
        if known.get("output_compression") == 100 and known.get("output_format", "png") == "png":
            del known["output_compression"]
        return known


class OpenAIImage(BaseModel):
    url: str | None = None
    b64_json: str | None = None
    seed: int = Field(description="Not OpenAI's: the same seed draws the same picture.")


class OpenAIImages(BaseModel):
    """OpenAI's ImagesResponse; `id` and `warnings` are ours."""

    created: int
    background: Literal["opaque"] = "opaque"
    output_format: OutputFormat
    size: str
    data: list[OpenAIImage]
    id: str = Field(description="The job: see GET /v1/images/{id}.")
    warnings: list[Advice]


@router.post(
    "/generations",
    summary="Draw images and wait for them, as OpenAI's API does",
    response_model=OpenAIImages,
    response_model_exclude_none=True,
    responses={
        **ERRORS,
        200: {"description": "The images; with `stream`, events.", "content": {"text/event-stream": {}}},
    },
)
async def generate(
    body: OpenAIImageRequest, request: Request, services: ServicesDep, asker: AskerDep
) -> OpenAIImages | EventSourceResponse:
    """Leaving before the answer cancels the job, unless there is an `Idempotency-Key`."""
    if body.stream:
        accepted = await accept(services, asker, body, "openai")
        job = (await find_record(services, asker.tenant, accepted.job_id)).job
        events = _events(request, services, asker, job, body.partial_images)
        return EventSourceResponse(events, headers=UNBUFFERED)
    drawn = await draw(request, services, asker, body, "openai")
    job = drawn.record.job
    urls = [image.url for image in job_view(drawn.record, asker.links, None).data]
    return OpenAIImages(
        created=drawn.record.submitted_ms // 1000,
        output_format=job.output_format,
        size=f"{job.width}x{job.height}",
        data=[
            OpenAIImage(
                url=url if body.response_format != "b64_json" else None,
                b64_json=_base64(await read_picture(services.store, image)) if body.response_format != "url" else None,
                seed=image.seed,
            )
            for url, image in zip(urls, drawn.images, strict=True)
        ],
        id=job.id,
        warnings=list(job.warnings),
    )


async def _events(
    request: Request, services: Services, asker: Asker, job: ImageJob, partial_images: int
) -> AsyncIterator[bytes]:
    """Say how the images develop, then give each; an error, once the answer has begun, can only be an event."""
    try:
        async with canceled_if_given_up(services, asker, job.id):
            previews = _Previews(services, job, partial_images)
            quiet_since_s = time.monotonic()
            async with aclosing(looks(services, job.tenant, job.id, services.settings.wait_timeout_s)) as records:
                async for record in records:
                    if await request.is_disconnected():
                        raise ClientLeftError("client_left", "the client went away")
                    async for event in previews.new(record):
                        yield event
                        quiet_since_s = time.monotonic()
                    if time.monotonic() - quiet_since_s > KEEP_ALIVE_EVERY_S:
                        yield KEEPALIVE_COMMENT
                        quiet_since_s = time.monotonic()
            for image in finished(record, asker):
                data = await read_picture(services.store, image)
                yield _event("completed", job, data, job.output_format, index=image.index, seed=image.seed)
    except ClientLeftError:
        return
    except ApiError as error:
        body = error_body(error, request.state.request_id).model_dump_json()
        yield format_sse_event(event="error", data_str=body)


class _Previews:
    """The previews of a job's images: each of them up to so many times, spread over its steps."""

    def __init__(self, services: Services, job: ImageJob, most: int) -> None:
        self._services = services
        self._job = job
        self._most = most
        self._shown: list[list[bytes]] = [[] for _ in range(job.n)]

    async def new(self, record: JobRecord) -> AsyncIterator[bytes]:
        """Give events for the images whose preview is due and is another than the last one."""
        if record.progress is None or record.result is not None:
            return
        done = record.progress.step / record.progress.total_steps
        for index, shown in enumerate(self._shown):
            if len(shown) >= self._most or done < (len(shown) + 1) / (self._most + 1):
                continue
            try:
                preview = await self._services.store.get(preview_path(self._job.id, index))
            except ImageNotStoredError:
                continue
            if (digest := hashlib.sha256(preview).digest()) not in shown:
                yield _event(
                    "partial_image",
                    self._job,
                    preview,
                    OutputFormat.JPEG,
                    index=index,
                    partial_image_index=len(shown),
                )
                shown.append(digest)


def _event(kind: str, job: ImageJob, data: bytes, output_format: OutputFormat, **more: int) -> bytes:
    event = f"image_generation.{kind}"
    fields = {
        "type": event,
        "b64_json": _base64(data),
        "created_at": int(time.time()),
        "size": f"{job.width}x{job.height}",
        "quality": "auto",
        "background": "opaque",
        "output_format": output_format,
        **more,
    }
    return format_sse_event(event=event, data_str=json.dumps(fields))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
