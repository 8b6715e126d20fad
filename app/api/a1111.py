"""/sdapi/v1: what clients of AUTOMATIC1111's web UI ask for, Open WebUI's engine of that name for one.

https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/API. Its server draws one picture at a time with one model;
here these are a tenant's: the model that its clients chose, and the jobs that came through this API.
"""

import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.api.accept import AskerDep, find_card
from app.api.deps import Services, ServicesDep, TenantDep
from app.api.pictures import read_picture
from app.api.records import cancel_job
from app.api.schemas import Text
from app.api.synchronous import ERRORS, draw, image_request
from app.errors import NotFoundError, documented
from app.jobs.schema import ImageJob, JobRecord, JobState
from app.jobs.store import ImageNotStoredError, preview_path

router = APIRouter(prefix="/sdapi/v1", tags=["compatible with other APIs"])

_SAMPLER = "Euler"
_MARK = {"api": "sdapi"}  # metadata of this API's jobs, so that `interrupt` leaves others alone
_PAGE = 100
_PAGES = 2  # each looks at 2,000 of a tenant's jobs at most: JobQueue.page


class Options(BaseModel):
    """The one option that there is; others are ignored."""

    model_config = ConfigDict(extra="ignore")

    sd_model_checkpoint: str | None = Field(default=None, max_length=128, description="A model to draw with.")


class SDModel(BaseModel):
    title: str
    model_name: str
    hash: None = None
    sha256: None = None
    filename: str
    config: None = None


class Sampler(BaseModel):
    name: str
    aliases: list[str]
    options: dict[str, str]


class Txt2ImgRequest(BaseModel):
    """Of A1111's many fields those that mean something here; others are ignored, samplers among them."""

    model_config = ConfigDict(extra="ignore")

    prompt: Text
    negative_prompt: Text = ""
    steps: int | None = None
    cfg_scale: float | None = None
    distilled_cfg_scale: float | None = Field(default=None, description="Forge's name for Flux's guidance.")
    width: int | None = None
    height: int | None = None
    seed: int = Field(default=-1, description="Below 0: a random one.")
    batch_size: int = Field(default=1, ge=1)
    n_iter: int = Field(default=1, ge=1)
    enable_hr: Literal[False] = False
    override_settings: Options = Options()
    send_images: bool = True

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        # Clients that fill in a form of all fields say null for those left empty.
        return {name: value for name, value in data.items() if value is not None} if isinstance(data, dict) else data


class Txt2Img(BaseModel):
    images: list[str] = Field(description="Base64.")
    parameters: Txt2ImgRequest
    info: str = Field(description="JSON: the seeds, and how each image was drawn.")


class ProgressState(BaseModel):
    skipped: bool = False
    interrupted: bool = False
    job: str
    job_count: int
    job_no: int = 0
    sampling_step: int
    sampling_steps: int


class Progress(BaseModel):
    progress: float = Field(description="0 to 1, of the newest of this API's jobs that is being drawn.")
    eta_relative: float = Field(description="Seconds, from how long it took so far.")
    state: ProgressState
    current_image: str | None = Field(description="Base64: its latest preview.")
    textinfo: str | None = None


@router.get(
    "/options",
    summary="Read the model that is drawn with",
    responses=documented(HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE),
)
async def options(services: ServicesDep, tenant: TenantDep) -> Options:
    return Options(sd_model_checkpoint=await _model(services, tenant))


@router.post(
    "/options",
    summary="Choose the model to draw with",
    responses=documented(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)
async def set_options(options: Options, services: ServicesDep, tenant: TenantDep) -> Options:
    if options.sd_model_checkpoint is not None:
        card = find_card(services, options.sd_model_checkpoint)
        await services.chosen_models.set(tenant, card.name)
    return Options(sd_model_checkpoint=await _model(services, tenant))


@router.get("/sd-models", summary="List models")
async def sd_models(services: ServicesDep) -> list[SDModel]:
    return [SDModel(title=name, model_name=name, filename=name) for name in services.catalog]


@router.get("/samplers", summary="List samplers: there is one")
async def samplers() -> list[Sampler]:
    return [Sampler(name=_SAMPLER, aliases=[_SAMPLER.lower()], options={})]


@router.post(
    "/txt2img",
    summary="Draw images and wait for them, as A1111 does",
    responses=ERRORS,
)
async def txt2img(body: Txt2ImgRequest, request: Request, services: ServicesDep, asker: AskerDep) -> Txt2Img:
    """What is left out takes the model's default, not A1111's."""
    asked = {
        "prompt": body.prompt,
        "negative_prompt": body.negative_prompt or None,
        "model": body.override_settings.sd_model_checkpoint or await _model(services, asker.tenant),
        "num_inference_steps": body.steps,
        "guidance_scale": body.cfg_scale if body.distilled_cfg_scale is None else body.distilled_cfg_scale,
        "width": body.width,
        "height": body.height,
        "seed": body.seed if body.seed >= 0 else None,
        "n": body.batch_size * body.n_iter,
        "metadata": _MARK,
    }
    drawn = await draw(request, services, asker, image_request(asked), "sdapi")
    job = drawn.record.job
    pictures = [await read_picture(services.store, image) for image in drawn.images] if body.send_images else []
    return Txt2Img(
        images=[base64.b64encode(picture).decode("ascii") for picture in pictures],
        parameters=body,
        info=json.dumps(_info(job) | {"warnings": [advice.message for advice in job.warnings]}),
    )


@router.get(
    "/progress",
    summary="See how the newest job develops",
    responses=documented(HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE),
)
async def progress(
    services: ServicesDep,
    tenant: TenantDep,
    skip_current_image: Annotated[bool, Query(description="Leave the preview out.")] = False,
) -> Progress:
    async for record in _jobs(services, tenant, JobState.IN_PROGRESS):
        return await _progress(services, record, skip_current_image)
    idle = ProgressState(job="", job_count=0, sampling_step=0, sampling_steps=0)
    return Progress(progress=0, eta_relative=0, state=idle, current_image=None)


@router.post(
    "/interrupt",
    summary="Cancel this API's jobs",
    responses=documented(HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE),
)
async def interrupt(services: ServicesDep, tenant: TenantDep) -> dict[str, str]:
    """At most 200 at a time, the newest first, and none that has thousands of newer jobs before it."""
    async for record in _jobs(services, tenant, JobState.QUEUED, JobState.DELAYED, JobState.IN_PROGRESS):
        with suppress(NotFoundError):  # deleted meanwhile
            await cancel_job(services, tenant, record.job.id)
    return {}


async def _model(services: Services, tenant: str) -> str:
    chosen = await services.chosen_models.get(tenant)
    return chosen if chosen is not None and chosen in services.catalog else next(iter(services.catalog))


async def _jobs(services: Services, tenant: str, *states: JobState) -> AsyncIterator[JobRecord]:
    """Give this API's jobs in these states, of the tenant's newest: clients ask each second, however long its past."""
    after = ""
    for _ in range(_PAGES):
        page = await services.queue.page(tenant, limit=_PAGE, after=after, states=states)
        for record in page.records:
            if record.job.metadata == _MARK:
                yield record
        if page.next_after is None:
            return
        after = page.next_after


async def _progress(services: Services, record: JobRecord, skip_current_image: bool) -> Progress:
    job = record.job
    step, steps = (record.progress.step, record.progress.total_steps) if record.progress else (0, 0)
    done = step / steps if steps else 0.0
    ran_s = time.time() - (record.started_ms or record.submitted_ms) / 1000
    preview = None
    if not skip_current_image:
        with suppress(ImageNotStoredError):  # none yet
            preview = base64.b64encode(await services.store.get(preview_path(job.id, 0))).decode("ascii")
    return Progress(
        progress=done,
        eta_relative=max(0.0, ran_s * (1 - done) / done) if done else 0.0,
        state=ProgressState(job=job.id, job_count=1, sampling_step=step, sampling_steps=steps),
        current_image=preview,
    )


def _info(job: ImageJob) -> dict[str, object]:
    seeds = list(job.seeds)
    return {
        "prompt": job.prompt,
        "all_prompts": [job.prompt] * job.n,
        "negative_prompt": job.negative_prompt or "",
        "all_negative_prompts": [job.negative_prompt or ""] * job.n,
        "seed": job.seed,
        "all_seeds": seeds,
        "width": job.width,
        "height": job.height,
        "sampler_name": _SAMPLER,
        "cfg_scale": job.guidance_scale,
        "steps": job.num_inference_steps,
        "batch_size": job.n,
        "sd_model_name": job.model,
        "job_id": job.id,
    }
