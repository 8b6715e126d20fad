"""The engine: requests join before a step, take it together, and leave after their last.

One thread owns it. It knows no queue, no HTTP and no clock that it was not given. Whatever goes wrong in a batch is
narrowed down until it is one request's own trouble: see `_attempt`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from workers.engine.admission import Admission
from workers.engine.batch import DenoiseBatch, Formation, Moved, commit, form, gather, move, predict_x0
from workers.engine.checkpoint import take_checkpoint
from workers.engine.cost import Stage
from workers.engine.device_models import DeviceModels
from workers.engine.eta import seconds_in_turns
from workers.engine.pipeline import NotNumbersError, StepPipeline
from workers.engine.prompt_cache import PromptCache
from workers.engine.report import Drawn, Failed, FailureReason, Preview, Report, Worked
from workers.engine.request import DenoiseRequest
from workers.engine.residency import Residency
from workers.engine.sampling import not_numbers
from workers.engine.scheduler import Scheduler
from workers.engine.trouble import attempt, lacks_memory, reason_of

PROMPT_CACHE_BYTES = 256 * 1024**2


class Engine:
    """Admit requests, then step until none is left. Each call raises DeviceLostError when the device is lost.

    residency: which models are on the device; by default all of them, for good. preview_every_s, checkpoint_every_s:
    least seconds between two of one request; None: none are taken.
    """

    def __init__(
        self,
        pipelines: Mapping[str, StepPipeline],
        scheduler: Scheduler,
        clock: Callable[[], float],
        *,
        residency: Residency | None = None,
        prompts: PromptCache | None = None,
        preview_every_s: float | None = None,
        checkpoint_every_s: float | None = None,
    ) -> None:
        sizes = {name: pipeline.weight_bytes for name, pipeline in pipelines.items()}
        self._models = DeviceModels(pipelines, residency or Residency(sizes, budget_bytes=None), clock)
        self._prompts = PromptCache(PROMPT_CACHE_BYTES) if prompts is None else prompts
        self._admission = Admission(self._models, self._prompts, scheduler, clock)
        self._scheduler = scheduler
        self._cost = scheduler.cost
        self._clock = clock
        self._preview_every_s = math.inf if preview_every_s is None else preview_every_s
        self._checkpoint_every_s = math.inf if checkpoint_every_s is None else checkpoint_every_s
        self._requests: dict[str, DenoiseRequest] = {}
        self._formation: Formation | None = None
        self._last_step_s = 0.0
        # Largest (height, width) that each model has drawn, to name when a larger one does not fit.
        self._fitted: dict[str, tuple[int, int]] = {}

    def __len__(self) -> int:
        """Requests in flight."""
        return len(self._requests)

    def next_admissions(self, waiting: Sequence[DenoiseRequest]) -> list[DenoiseRequest]:
        """Say which of the waiting may join at this step boundary."""
        return self._admission.next(waiting, self._last_step_s if self._requests else None)

    def admit(self, requests: Sequence[DenoiseRequest]) -> Report:
        """Encode the prompts, draw the noise, and let the requests join from the next step on."""
        report = Report()
        for request in requests:
            prepare = partial(self._admission.prepare, request, report)
            trouble = attempt(prepare)
            if lacks_memory(trouble):
                self._relieve(request.spec.model)
                trouble = attempt(prepare)
            if trouble is None:
                self._requests[request.id] = request
                request.promised_s = seconds_in_turns(request, list(self._requests.values()), self._cost)
            else:
                report.failed.append(self._failed(request, trouble))
        return report

    def abort(self, request_id: str) -> None:
        """Let a request go, if it is still here."""
        if self._requests.pop(request_id, None) is not None:
            self._formation = None

    def step(self) -> Report:
        """Do one piece of work: one step of a batch, or one decode. With no request in flight, do nothing."""
        report = Report()
        work = self._scheduler.next_work(list(self._requests.values()), self._clock(), self._models.switch_s)
        if work is not None:
            self._attempt(work.stage, work.requests, report)
            for request in [*(drawn.request for drawn in report.drawn), *(failed.request for failed in report.failed)]:
                self.abort(request.id)
        return report

    def save(self) -> Report:
        """Take a checkpoint of every request that has moved since its last one."""
        return Report(saved=[take_checkpoint(r) for r in self._requests.values() if r.step_index > r.saved_step])

    # Working, and narrowing down trouble

    def _attempt(self, stage: Stage, requests: Sequence[DenoiseRequest], report: Report) -> None:
        """Work on these together; on trouble halve them and try again, until whoever causes it is alone.

        Nothing of a request changes before its work has succeeded, so a second try is the same work. A batch that
        memory is too small for is nobody's fault: its halves go on, and batches of this shape stay that small.
        """
        work = partial(self._work, stage, requests, report)
        trouble = attempt(work)
        if lacks_memory(trouble):
            self._relieve(requests[0].spec.model)
            if len(requests) == 1:
                trouble = attempt(work)
        if trouble is None:
            return
        if len(requests) == 1:
            report.failed.append(self._failed(requests[0], trouble))
            return
        report.splits.append(reason_of(trouble))
        halves = requests[: len(requests) // 2], requests[len(requests) // 2 :]
        if lacks_memory(trouble):
            # Of a decode, each image is one row.
            largest = max(sum(r.rows if stage is Stage.DENOISE else 1 for r in half) for half in halves)
            self._scheduler.lower_cap(requests[0].key, largest, stage)
        for half in halves:
            self._attempt(stage, half, report)

    def _relieve(self, model: str) -> None:
        """Give back what memory can be spared for this model."""
        self._prompts.clear()
        self._formation = None
        self._models.keep_only(model)
        if torch.accelerator.is_available():
            torch.accelerator.empty_cache()

    def _work(self, stage: Stage, requests: Sequence[DenoiseRequest], report: Report) -> None:
        pipeline = self._models.bring(requests[0].spec.model, report)
        if stage is Stage.VAE_DECODE:
            self._decode(pipeline, requests, report)
        else:
            self._denoise(pipeline, requests, report)

    @torch.inference_mode()
    def _denoise(self, pipeline: StepPipeline, requests: Sequence[DenoiseRequest], report: Report) -> None:
        started_s = self._clock()
        formation = self._form(requests)
        batch = gather(formation)
        moved = move(formation, batch, pipeline.denoise(batch))
        lost = not_numbers(moved.latents)
        now_s = self._clock()
        rows = len(formation.rows)
        self._last_step_s = now_s - started_s
        self._worked(Stage.DENOISE, requests, rows, self._last_step_s, report, images=len(requests) - len(lost))
        for i, request in enumerate(requests):
            if i not in lost:
                commit(request, moved.latents, i, rows)
                request.denoise_s = now_s - request.admitted_at_s
        # From here on the step is taken: what goes wrong below must not have it taken again.
        for i in lost:
            self._repair(pipeline, requests[i], report)
        trouble = attempt(partial(self._look_in, pipeline, formation, batch, moved, now_s, lost, report))
        if trouble is not None:
            report.overlooked.append(trouble)

    def _repair(self, pipeline: StepPipeline, request: DenoiseRequest, report: Report) -> None:
        """Take the step again in float32, from the latents before it; if that gives no numbers either, it fails."""

        def step() -> None:
            started_s = self._clock()
            formation = form([request])
            batch = gather(formation)
            with pipeline.in_float32():
                moved = move(formation, batch, pipeline.denoise(batch))
            if not_numbers(moved.latents):
                raise NotNumbersError(f"latents at step {request.step_index}")
            seconds = self._clock() - started_s
            request.gpu_s += seconds
            # What float32 takes teaches the cost model nothing of other steps.
            report.worked.append(Worked(Stage.DENOISE, request.key, request.rows, seconds, images=1))
            commit(request, moved.latents, 0, len(formation.rows))
            report.repaired += 1

        trouble = attempt(step)
        if lacks_memory(trouble):
            self._relieve(request.spec.model)
            trouble = attempt(step)
        if trouble is not None:
            report.failed.append(Failed(request, FailureReason.INVALID_OUTPUT, trouble))

    def _look_in(
        self,
        pipeline: StepPipeline,
        formation: Formation,
        batch: DenoiseBatch,
        moved: Moved,
        now_s: float,
        lost: frozenset[int],
        report: Report,
    ) -> None:
        """Take the checkpoints and previews that are due."""
        requests = formation.requests
        developing = [i for i, request in enumerate(requests) if request.remaining_steps and i not in lost]
        for i in developing:
            if now_s - requests[i].saved_at_s >= self._checkpoint_every_s:
                requests[i].saved_at_s = now_s
                report.saved.append(take_checkpoint(requests[i]))
        due = [i for i in developing if now_s - requests[i].previewed_at_s >= self._preview_every_s]
        if not due:
            return
        key = requests[0].key
        images = pipeline.preview(predict_x0(formation, batch, moved, due), key.height, key.width)
        for place, i in enumerate(due):
            requests[i].previewed_at_s = now_s
            if images is not None:
                report.previews.append(Preview(requests[i], requests[i].step_index, images[place]))

    @torch.inference_mode()
    def _decode(self, pipeline: StepPipeline, requests: Sequence[DenoiseRequest], report: Report) -> None:
        key = requests[0].key
        started_s = self._clock()
        latents = torch.cat([request.latents for request in requests])
        pixels = pipeline.decode(latents, key.height, key.width)
        now_s = self._clock()
        seconds = now_s - started_s
        self._worked(Stage.VAE_DECODE, requests, len(requests), seconds, report, images=len(requests))
        # A picture is safe when its job is complete; until then its last latents are, and only need decoding again.
        report.saved += [take_checkpoint(request) for request in requests if request.has_siblings]
        for request, image in zip(requests, pixels, strict=True):
            request.vae_decode_s, request.drawn_at_s = seconds, now_s
            report.drawn.append(Drawn(request, image))
        self._fitted[key.model] = max((key.height, key.width), self._fitted.get(key.model, (0, 0)), key=math.prod)

    # Small print

    def _form(self, requests: Sequence[DenoiseRequest]) -> Formation:
        if self._formation is None or self._formation.requests != tuple(requests):
            self._formation = form(requests)
        return self._formation

    def _worked(
        self,
        stage: Stage,
        requests: Sequence[DenoiseRequest],
        rows: int,
        seconds: float,
        report: Report,
        *,
        images: int,
    ) -> None:
        key = requests[0].key
        self._cost.observe(stage, key, rows, seconds)
        report.worked.append(Worked(stage, key, rows, seconds, images))
        for request in requests:
            request.gpu_s += seconds * (request.rows if stage is Stage.DENOISE else 1) / rows

    def _failed(self, request: DenoiseRequest, trouble: Exception) -> Failed:
        return Failed(request, reason_of(trouble), trouble, self._fitted.get(request.spec.model))
