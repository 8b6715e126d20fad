"""The gateway over HTTP, as the `darkroom` command uses it."""

import asyncio
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Literal, Self

import httpx
from pydantic import BaseModel, ValidationError

from app.cli.errors import ServerError

_PATIENCE_S = 30.0


class ProgressView(BaseModel):
    percent: int
    stage: str
    step: int
    total_steps: int


class PictureView(BaseModel):
    url: str
    width: int
    height: int
    seed: int
    steps: int


class ParametersView(BaseModel):
    guidance_scale: float
    largest_batch: int | None


class TimingsView(BaseModel):
    """Seconds; None as long as they are not known."""

    queue_seconds: float | None
    text_encode_seconds: float | None
    denoise_seconds: float | None
    vae_decode_seconds: float | None
    total_seconds: float | None


class JobErrorView(BaseModel):
    code: str
    message: str


class AdviceView(BaseModel):
    message: str


class UrlsView(BaseModel):
    self: str
    cancel: str


class JobView(BaseModel):
    """What is read of a job; a newer gateway may say more."""

    id: str
    status: Literal["queued", "in_progress", "completed", "failed", "canceled"]
    model: str
    progress: ProgressView
    data: list[PictureView]
    parameters: ParametersView
    timings: TimingsView
    warnings: list[AdviceView]
    error: JobErrorView | None
    urls: UrlsView

    @property
    def ended(self) -> bool:
        return self.status in ("completed", "failed", "canceled")


class _AwayError(ServerError):
    """The gateway does not answer, or says that its queue does not; that may pass."""


class ImageClient:
    """Submit, watch and fetch. Every method raises ServerError, in words for the user."""

    def __init__(self, url: str, *, api_key: str | None = None, trust_env: bool = True) -> None:
        """trust_env: heed the environment's proxies; not for a gateway on this machine."""
        self._url = url
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=30.0, trust_env=trust_env)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def submit(self, request: Mapping[str, object]) -> JobView:
        """Ask for a picture, in the API's own words; what is None is left to the server."""
        body = {name: value for name, value in request.items() if value is not None}
        return _job(await self._send("POST", "/v1/images", body))

    async def watch(self, job: JobView, seen: Callable[[JobView], None], *, every_s: float) -> JobView:
        """Poll until the job has ended. A gateway or queue that is away for a while is waited for: jobs survive it."""
        last_answer_s = time.monotonic()
        while not job.ended:
            await asyncio.sleep(every_s)
            try:
                job = _job(await self._send("GET", job.urls.self))
            except _AwayError:
                if time.monotonic() - last_answer_s > _PATIENCE_S:
                    raise
                continue
            last_answer_s = time.monotonic()
            seen(job)
        return job

    async def fetch(self, picture: PictureView) -> bytes:
        return (await self._send("GET", picture.url)).content

    async def cancel(self, job: JobView) -> None:
        await self._send("POST", job.urls.cancel)

    async def _send(self, method: str, url: str, body: Mapping[str, object] | None = None) -> httpx.Response:
        try:
            answer = await self._http.request(method, url, json=body)
        except httpx.TransportError as error:
            raise _AwayError(f"No answer from {self._url} ({error}). Is `darkroom up` running?") from error
        except (httpx.InvalidURL, httpx.HTTPError) as error:
            raise ServerError(f"Cannot ask {self._url}: {error}") from error
        if answer.is_success:
            return answer
        message = f"{self._url} answered {answer.status_code}: {_detail(answer)}"
        raise (_AwayError if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else ServerError)(message)


def _job(answer: httpx.Response) -> JobView:
    try:
        return JobView.model_validate_json(answer.content)
    except ValidationError as error:
        raise ServerError(f"{answer.url} did not answer as Darkroom does; is it another server?") from error


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return answer.reason_phrase or "no reason given"
