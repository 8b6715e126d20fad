"""How requests come in: who is next, and what is done for them before their first step."""

from collections.abc import Callable, Sequence

import torch

from workers.engine.checkpoint import resume
from workers.engine.cost import Stage
from workers.engine.device_models import DeviceModels
from workers.engine.prompt_cache import PromptCache, PromptKey
from workers.engine.report import Report, Worked
from workers.engine.request import BatchKey, Conditioning, DenoiseRequest, ImageSpec
from workers.engine.scheduler import Priority, Scheduler

_SWITCHES_WAITED = 20
"""While others are in flight, a newcomer of ordinary priority whose model must be brought to the device waits for this
many times what the move takes: so moves for newcomers cost the others about a twentieth at the most."""


_PASSED_AT_MOST = 20
"""Newcomers that may be admitted before the one that waits longest; then it is next, whatever its priority or model."""

_KEYS_KEPT = 1024


class Admission:
    def __init__(
        self, models: DeviceModels, prompts: PromptCache, scheduler: Scheduler, clock: Callable[[], float]
    ) -> None:
        self._models = models
        self._prompts = prompts
        self._scheduler = scheduler
        self._cost = scheduler.cost
        self._clock = clock
        # One object for all equal keys: they are compared at each step.
        self._keys: dict[BatchKey, BatchKey] = {}
        self._oldest: str | None = None
        self._passed = 0

    def next(self, waiting: Sequence[DenoiseRequest], step_s: float | None) -> list[DenoiseRequest]:
        """Say which of the waiting may join now. step_s: what the next step of those in flight takes; None: none are.

        Their encodes hold up the next step, so it is few at a time, and all of one model when that has to be brought.
        """
        oldest = min(waiting, key=lambda request: request.arrival_s)
        if oldest.id != self._oldest:
            self._oldest, self._passed = oldest.id, 0
        elif self._passed >= _PASSED_AT_MOST:
            return [oldest]
        admitted = self._first_of(waiting, step_s)
        if oldest not in admitted:
            self._passed += len(admitted)
        return admitted

    def _first_of(self, waiting: Sequence[DenoiseRequest], step_s: float | None) -> list[DenoiseRequest]:
        now_s = self._clock()
        line = sorted(waiting, key=lambda r: (-r.priority, self._models.switch_s(r.spec.model) > 0, r.arrival_s))
        if step_s is not None:
            line = [r for r in line if r.priority is Priority.HIGH or now_s - r.arrival_s >= self._patience_s(r)]
        if not line:
            return []
        first = line[0]
        if self._models.switch_s(first.spec.model):
            line = [request for request in line if request.spec.model == first.spec.model]
        if step_s is None:
            step_s = self._cost.seconds(Stage.DENOISE, first.key, first.rows)
        return line[: self._scheduler.admissions([self._encode_s(request) for request in line], step_s)]

    @torch.inference_mode()
    def prepare(self, request: DenoiseRequest, report: Report) -> None:
        """Encode its prompts, draw its noise or take up its checkpoint: it can take its first step."""
        spec, pipeline = request.spec, self._models[request.spec.model]
        started_s = self._clock()
        if len(self._keys) >= _KEYS_KEPT:
            self._keys.clear()
        request.key = self._keys.setdefault(request.key, request.key)
        request.guidance = pipeline.guide(spec)
        request.conditioning = self._encode(request, spec.prompt, report)
        if request.guidance.negative_prompt is not None:
            request.negative = self._encode(request, request.guidance.negative_prompt, report)
            request.rows = 2
        request.stack, request.schedule = pipeline.init_latents(spec)
        resume(request)
        if request.resumed_step:
            report.resumed.append(request)
        now_s = self._clock()
        request.admitted_at_s = request.previewed_at_s = request.saved_at_s = now_s
        request.text_encode_s = now_s - started_s

    def _patience_s(self, request: DenoiseRequest) -> float:
        return _SWITCHES_WAITED * self._models.switch_s(request.spec.model)

    def _encode_s(self, request: DenoiseRequest) -> float:
        """What encoding its prompts is expected to take."""
        guidance = self._models[request.spec.model].guide(request.spec)
        prompts = [prompt for prompt in (request.spec.prompt, guidance.negative_prompt) if prompt is not None]
        unknown = sum(_prompt_key(request.spec, prompt) not in self._prompts for prompt in prompts)
        return unknown * self._cost.seconds(Stage.TEXT_ENCODE, request.key, 1)

    def _encode(self, request: DenoiseRequest, prompt: str, report: Report) -> Conditioning:
        spec = request.spec
        prompt_key = _prompt_key(spec, prompt)
        conditioning = self._prompts.get(prompt_key)
        if conditioning is not None:
            report.prompt_hits += 1
            return conditioning
        pipeline = self._models.bring(spec.model, report)
        started_s = self._clock()
        conditioning = pipeline.encode(prompt, spec.max_sequence_length)
        conditioning.pooled_prompt_embeds.flatten()[0].item()  # a device works on while its caller goes on: wait for it
        seconds = self._clock() - started_s
        self._prompts.put(prompt_key, conditioning)
        request.gpu_s += seconds
        self._cost.observe(Stage.TEXT_ENCODE, request.key, 1, seconds)
        report.worked.append(Worked(Stage.TEXT_ENCODE, request.key, 1, seconds, images=1))
        return conditioning


def _prompt_key(spec: ImageSpec, prompt: str) -> PromptKey:
    return PromptKey(spec.model, prompt, spec.max_sequence_length)
