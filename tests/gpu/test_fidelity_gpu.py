"""On a GPU a picture of a churning batch is the one drawn alone, and in float32 the one that the CPU draws."""

from collections import defaultdict
from collections.abc import Mapping
from statistics import median

import torch

from tests.benchmarks.parity import MODELS, draw_in_churn, load_bundled, random_specs
from tests.gpu.cuda import CUDA, NEEDS_CUDA
from tests.gpu.drawing import NEAR_DB, draw, make_engine, psnr_db

pytestmark = NEEDS_CUDA


def test_a_churning_batch_in_bfloat16_draws_what_each_request_draws_alone() -> None:
    pipelines = load_bundled(torch.bfloat16, CUDA)
    alone = make_engine(pipelines)
    near_db: dict[str, list[float]] = defaultdict(list)
    largest_batch = 0
    for drawn in draw_in_churn(pipelines, random_specs(60, seed=0), seed=0):
        (pixels,) = draw(alone, [drawn.request.spec]).pixels
        near_db[drawn.request.spec.model].append(psnr_db(drawn.pixels, pixels))
        largest_batch = max(largest_batch, drawn.request.largest_batch)
    show("bfloat16, churning batch against alone", near_db)

    assert largest_batch >= 4, "they did share forwards"
    for model in MODELS:
        assert len(near_db[model]) == 20
        assert min(near_db[model]) >= NEAR_DB, model


def test_float32_draws_what_the_cpu_draws() -> None:
    specs = random_specs(9, seed=1)
    on_gpu = make_engine(load_bundled(torch.float32, CUDA))
    on_cpu = make_engine(load_bundled(torch.float32))
    near_db: dict[str, list[float]] = defaultdict(list)
    for spec in specs:
        near_db[spec.model].append(psnr_db(draw(on_gpu, [spec]).pixels[0], draw(on_cpu, [spec]).pixels[0]))
    show("float32, GPU against CPU", near_db)

    for model in MODELS:
        assert min(near_db[model]) >= NEAR_DB, model


def show(what: str, near_db: Mapping[str, list[float]]) -> None:
    for model, values in near_db.items():
        print(f"\n{what}: {model}: PSNR min {min(values):.1f} dB, median {median(values):.1f} dB of {len(values)}")
