"""A device whose memory is really full: batches are halved, nobody fails who fits alone, and who does not is told."""

from collections.abc import Callable

import pytest
import torch

from tests.gpu.cuda import NEEDS_CUDA, load, memory_left, needed_bytes
from tests.gpu.drawing import NEAR_DB, admit, draw, finish, make_engine, psnr_db
from tests.workers.requests import make_spec
from workers.engine.batch import form, gather
from workers.engine.cost import Stage
from workers.engine.pipeline import StepPipeline
from workers.engine.report import FailureReason, Report
from workers.engine.request import DenoiseRequest, ImageSpec

pytestmark = NEEDS_CUDA

MODEL = "tiny-flux-dev"


@pytest.fixture(scope="module")
def pipeline() -> StepPipeline:
    return load(MODEL)


# One row of a decode takes many times what one row of a step does.
@pytest.mark.parametrize(("stage", "rows"), [(Stage.DENOISE, 64), (Stage.VAE_DECODE, 16)])
def test_a_batch_that_does_not_fit_is_halved_and_stays_so(pipeline: StepPipeline, stage: Stage, rows: int) -> None:
    specs = [make_spec(model=MODEL, height=512, width=512, seed=seed) for seed in range(rows)]
    expected = draw(make_engine({MODEL: pipeline}, rows), specs).pixels
    half, whole = (needed_bytes(work(pipeline, stage, specs[0], count)) for count in (rows // 2, rows))
    print(f"\n{stage}: {half / 2**20:.0f} MiB for {rows // 2} rows, {whole / 2**20:.0f} MiB for {rows}")
    assert whole > 1.5 * half

    engine = make_engine({MODEL: pipeline}, rows)
    requests = admit(engine, specs)
    before = []
    while stage is Stage.VAE_DECODE and requests[0].remaining_steps:
        before.append(engine.step())
    assert [worked.rows for report in before for worked in report.worked] == [rows] * len(before)
    with memory_left((half + whole) // 2):
        halved = engine.step()
        assert halved.splits == [FailureReason.OUT_OF_MEMORY]
        assert rows_of(stage, [halved]) == [rows // 2, rows // 2]
        # The quicker half's other two steps: nobody is finished before them.
        capped = [engine.step(), engine.step()] if stage is Stage.DENOISE else draw(engine, specs).reports
    assert not [report.splits for report in capped if report.splits]
    assert max(rows_of(stage, capped)) <= rows // 2

    pixels = [drawn.pixels for drawn in halved.drawn] or finish(engine, requests).pixels
    near_db = [psnr_db(one, other) for one, other in zip(pixels, expected, strict=True)]
    print(f"{stage}: PSNR of split against whole min {min(near_db):.1f} dB")
    assert min(near_db) >= NEAR_DB


def test_an_image_too_large_alone_fails_and_is_told_what_fits(pipeline: StepPipeline) -> None:
    small, large = (make_spec(model=MODEL, height=side, width=side) for side in (256, 1024))
    fits, too_much = (needed_bytes(work(pipeline, Stage.VAE_DECODE, spec, 1)) for spec in (small, large))
    print(f"\none decode: {fits / 2**20:.0f} MiB at 256, {too_much / 2**20:.0f} MiB at 1024")
    engine = make_engine({MODEL: pipeline})
    (expected,) = draw(engine, [small]).pixels
    with memory_left((fits + too_much) // 2):
        admit(engine, [large])
        failed = []
        while len(engine):
            failed += engine.step().failed
        assert [(failure.reason, failure.fits) for failure in failed] == [(FailureReason.OUT_OF_MEMORY, (256, 256))]
        near_db = psnr_db(draw(engine, [small]).pixels[0], expected)
        assert near_db >= NEAR_DB, "the size it names is drawn there"

    (pixels,) = draw(engine, [large]).pixels
    assert pixels.shape == (1024, 1024, 3)


def work(pipeline: StepPipeline, stage: Stage, spec: ImageSpec, rows: int) -> Callable[[], object]:
    """One forward of so many rows, without the engine."""
    request = DenoiseRequest("measured", spec, 0.0)
    with torch.inference_mode():
        request.guidance = pipeline.guide(spec)
        request.conditioning = pipeline.encode(spec.prompt, spec.max_sequence_length)
        request.stack, request.schedule = pipeline.init_latents(spec)
        batch = gather(form([request] * rows))

    @torch.inference_mode()
    def forward() -> None:
        if stage is Stage.DENOISE:
            pipeline.denoise(batch)
        else:
            pipeline.decode(batch.latents, spec.height, spec.width)

    return forward


def rows_of(stage: Stage, reports: list[Report]) -> list[int]:
    return [worked.rows for report in reports for worked in report.worked if worked.stage is stage]
