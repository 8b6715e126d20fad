"""Unfinished pictures in the store: checkpoints to go on from, and previews to look at.

Both belong to a job, not to a claim: whoever takes the job over goes on where the last one was. They go when the job is
over. Trouble with them costs a checkpoint or a preview, never a job.
"""

import asyncio
import io
from collections.abc import Callable, Mapping

import structlog
from PIL import Image
from torch import Tensor

from app.jobs.store import ImageNotStoredError, ImageStore, StoreError, checkpoint_path, preview_path
from workers.engine.checkpoint import fingerprint, from_bytes, to_bytes
from workers.engine.report import Preview, Saved
from workers.engine.request import Checkpoint, DenoiseRequest
from workers.metrics import WorkerMetrics
from workers.running_job import RunningJob

log = structlog.get_logger()

_PREVIEW_QUALITY = 80


class Unfinished:
    """revisions: model -> what its weights are; a checkpoint of other weights is ignored."""

    def __init__(self, store: ImageStore, revisions: Mapping[str, str], metrics: WorkerMetrics) -> None:
        self._store = store
        self._revisions = revisions
        self._metrics = metrics

    async def find(self, job: RunningJob, request: DenoiseRequest) -> Checkpoint | None:
        """Where an earlier attempt at this image left off, if there was one and its checkpoint is to be trusted."""
        if not job.claim.started_before:
            return None
        path = checkpoint_path(job.job.id, job.index_of(request))
        try:
            data = await self._store.get(path)
        except ImageNotStoredError:
            return None
        except StoreError as error:
            log.warning("checkpoint_unreadable", path=path, error=str(error))
            return None
        checkpoint = from_bytes(data, self._fingerprint(request))
        if checkpoint is None:
            log.warning("checkpoint_ignored", path=path)
        return checkpoint

    async def keep_checkpoint(self, job: RunningJob, saved: Saved) -> None:
        index = job.index_of(saved.request)
        path = checkpoint_path(job.job.id, index)
        fingerprint = self._fingerprint(saved.request)
        size_bytes = await self._put(job, path, lambda: to_bytes(saved.checkpoint, fingerprint))
        if size_bytes:
            job.unfinished.kept_steps[index] = saved.checkpoint.step_index
            self._metrics.checkpoints_written.inc()
            self._metrics.checkpoint_bytes.inc(size_bytes)

    async def keep_preview(self, job: RunningJob, preview: Preview) -> None:
        index = job.index_of(preview.request)
        job.unfinished.next_preview_steps[index] = preview.step_index
        if await self._put(job, preview_path(job.job.id, index), lambda: _jpeg(preview.pixels)):
            job.unfinished.preview_steps[index] = job.unfinished.next_preview_steps[index]

    async def forget(self, job: RunningJob) -> None:
        """The job is over: nothing unfinished is left of it, nor comes later."""
        job.unfinished.closed = True
        paths = [path(job.job.id, index) for index in range(job.job.n) for path in (checkpoint_path, preview_path)]
        async with job.unfinished.writing:
            try:
                await self._store.delete(paths)
            except StoreError as error:
                log.warning("unfinished_not_deleted", job_id=job.job.id, error=str(error))

    async def _put(self, job: RunningJob, path: str, make: Callable[[], bytes]) -> int:
        """Write what `make` gives, one file of a job at a time; a slow store gets the newest only. 0: not written."""
        unfinished = job.unfinished
        unfinished.newest[path] = make
        async with unfinished.writing:
            newest = unfinished.newest.pop(path, None)
            if unfinished.closed or newest is None:  # whoever wrote before took this along
                return 0
            try:
                data = await asyncio.to_thread(newest)
                await self._store.put(path, data)
            except (StoreError, OSError, ValueError, RuntimeError) as error:
                if not unfinished.refused:  # once a job: a full store would fill the log as well
                    log.warning("unfinished_not_kept", path=path, error=str(error))
                unfinished.refused = True
                return 0
        return len(data)

    def _fingerprint(self, request: DenoiseRequest) -> str:
        return fingerprint(request.spec, self._revisions[request.spec.model])


def _jpeg(pixels: Tensor) -> bytes:
    """pixels: (h, w, 3) uint8, small."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "JPEG", quality=_PREVIEW_QUALITY)
    return buffer.getvalue()
