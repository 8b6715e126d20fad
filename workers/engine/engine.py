"""The engine: requests join before a step, take it together, and leave after their last.

One thread owns it. It knows no queue, no HTTP and no clock that it was not given.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import torch
from torch import Tensor

from workers.engine.batch import gather, scatter
from workers.engine.pipeline import StepPipeline
from workers.engine.request import BatchKey, Conditioning, DenoiseRequest
from workers.engine.scheduler import Scheduler


class FailureReason(StrEnum):
    OUT_OF_MEMORY = "out_of_memory"
    INVALID_OUTPUT = "invalid_output"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, slots=True)
class Drawn:
    """A finished image. pixels: (height, width, 3) uint8 on the CPU."""

    request: DenoiseRequest
    pixels: Tensor


@dataclass(frozen=True, slots=True)
class Failed:
    """A request that will not be finished; `cause` is for the log, not for its author."""

    request: DenoiseRequest
    reason: FailureReason
    cause: BaseException | None


@dataclass(slots=True)
class Report:
    """What one call did. `rows` shared the forward of `model`, which with its update took `step_s` seconds."""

    model: str = ""
    rows: int = 0
    step_s: float = 0.0
    drawn: list[Drawn] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)


class Engine:
    """Admit requests, then step until none is left."""

    def __init__(self, pipelines: Mapping[str, StepPipeline], scheduler: Scheduler, clock: Callable[[], float]) -> None:
        self._pipelines = pipelines
        self._scheduler = scheduler
        self._clock = clock
        self._requests: dict[str, DenoiseRequest] = {}

    def __len__(self) -> int:
        """Requests in flight."""
        return len(self._requests)

    def admit(self, requests: Sequence[DenoiseRequest]) -> Report:
        """Encode the prompts, draw the noise, and let the requests join from the next step on."""
        report = Report()
        groups: dict[tuple[str, int], list[DenoiseRequest]] = defaultdict(list)
        for request in requests:
            groups[request.spec.model, request.spec.max_sequence_length].append(request)
        for (model, max_sequence_length), group in groups.items():
            # Images of one job share their prompt, and most guided requests the empty negative prompt.
            encode = functools.cache(
                functools.partial(self._pipelines[model].encode, max_sequence_length=max_sequence_length)
            )
            for request in group:
                try:
                    self._prepare(self._pipelines[model], encode, request)
                except Exception as error:
                    report.failed += _failures([request], error)
                else:
                    self._requests[request.id] = request
        return report

    def abort(self, request_id: str) -> None:
        """Let a request go, if it is still here."""
        self._requests.pop(request_id, None)

    def step(self) -> Report:
        """Take one step with one batch, and decode what it finished. With no request in flight, do nothing."""
        requests = self._scheduler.next_batch(list(self._requests.values()))
        if not requests:
            return Report()
        report = Report(model=requests[0].spec.model, rows=sum(request.rows for request in requests))
        pipeline = self._pipelines[report.model]
        try:
            self._denoise(pipeline, requests, report)
        except Exception as error:
            report.failed = _failures(requests, error)
        else:
            done = [request for request in requests if request.done]
            try:
                report.drawn, report.failed = self._decode(pipeline, done)
            except Exception as error:  # the others are still developing
                report.failed = _failures(done, error)
        for drawn in report.drawn:
            self.abort(drawn.request.id)
        for failed in report.failed:
            self.abort(failed.request.id)
        return report

    @torch.inference_mode()
    def _prepare(self, pipeline: StepPipeline, encode: Callable[[str], Conditioning], request: DenoiseRequest) -> None:
        spec = request.spec
        started_s = self._clock()
        request.guidance = pipeline.guide(spec)
        request.conditioning = encode(spec.prompt)
        if request.guidance.negative_prompt is not None:
            request.negative = encode(request.guidance.negative_prompt)
        request.latents, request.schedule = pipeline.init_latents(spec)
        text_length = request.conditioning.prompt_embeds.shape[1]
        request.key = BatchKey(spec.model, spec.height, spec.width, text_length)
        request.admitted_at_s = self._clock()
        request.text_encode_s = request.admitted_at_s - started_s

    @torch.inference_mode()
    def _denoise(self, pipeline: StepPipeline, requests: Sequence[DenoiseRequest], report: Report) -> None:
        started_s = self._clock()
        batch = gather(requests)
        scatter(requests, batch, pipeline.denoise(batch))
        now_s = self._clock()
        report.step_s = now_s - started_s
        for request in requests:
            request.denoise_s = now_s - request.admitted_at_s

    @torch.inference_mode()
    def _decode(self, pipeline: StepPipeline, requests: Sequence[DenoiseRequest]) -> tuple[list[Drawn], list[Failed]]:
        good = [request for request in requests if bool(torch.isfinite(request.latents).all())]
        bad = [Failed(request, FailureReason.INVALID_OUTPUT, None) for request in requests if request not in good]
        if not good:
            return [], bad
        started_s = self._clock()
        key = good[0].key
        pixels = pipeline.decode(torch.cat([request.latents for request in good]), key.height, key.width)
        seconds = self._clock() - started_s
        for request in good:
            request.vae_decode_s = seconds
        return [Drawn(request, image) for request, image in zip(good, pixels, strict=True)], bad


def _failures(requests: Sequence[DenoiseRequest], error: Exception) -> list[Failed]:
    lacks_memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
    reason = FailureReason.OUT_OF_MEMORY if lacks_memory else FailureReason.INTERNAL_ERROR
    return [Failed(request, reason, error) for request in requests]
