"""stages: what an image costs besides its steps."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from app.jobs.schema import OutputFormat
from tests.benchmarks.gpu.architectures import CLIP_LENGTH
from tests.benchmarks.gpu.cell import Cell
from tests.benchmarks.gpu.shelf import Shelf
from tests.benchmarks.gpu.timing import measure
from workers.images import encode_image
from workers.pipelines.pixels import vae_decode

SECTION = "stages"
_T5_LENGTHS = (77, 128, 256, 512)
_PREDICTED_S = 6.0


def cells(shelf: Shelf, decode_sizes: Mapping[int, tuple[int, ...]], image_size: int) -> list[Cell]:
    """decode_sizes: side in pixels -> rows. image_size: of the copy to the host and of the encoding."""
    encoders = [("t5-xxl", length) for length in _T5_LENGTHS]
    encoders += [("clip-l", CLIP_LENGTH), ("clip-g", CLIP_LENGTH)]
    return [
        *(
            _cell({"stage": "text-encode", "component": name, "length": length}, partial(_encode, shelf, name, length))
            for name, length in encoders
        ),
        *(
            _cell(
                {"stage": stage, "component": "flux-vae", "height": size, "width": size, "rows": rows},
                partial(_decode, shelf, stage, size, rows),
            )
            for size, counts in decode_sizes.items()
            for rows in counts
            for stage in ("vae-decode", "vae-decode-to-host")
        ),
        _cell(
            {"stage": "device-to-host", "height": image_size, "width": image_size}, partial(_copy, shelf, image_size)
        ),
        _cell({"stage": "png-encode", "height": image_size, "width": image_size}, partial(_png, image_size)),
        *(_cell({"stage": "build", "component": name}, partial(_build, shelf, name)) for name in _builds(shelf)),
    ]


def _cell(identity: Mapping[str, Any], measured: Callable[[], Mapping[str, Any]]) -> Cell:
    return Cell(SECTION, identity, lambda: _PREDICTED_S, measured)


def _encode(shelf: Shelf, name: str, length: int) -> Mapping[str, Any]:
    encoder = shelf.component(name)
    ids = torch.randint(3, encoder.config.vocab_size, (1, length), device=shelf.device)
    return asdict(measure(lambda: encoder(ids), shelf.device))


def _decode(shelf: Shelf, stage: str, size: int, rows: int) -> Mapping[str, Any]:
    """The network alone, or as the engine does it: on to uint8 pixels on the host."""
    vae = shelf.component("flux-vae")
    latents = torch.randn(rows, 16, size // 8, size // 8, device=shelf.device, dtype=shelf.dtype)
    decode = partial(vae_decode, vae, latents) if stage == "vae-decode-to-host" else partial(vae.decode, latents)
    if shelf.device.type != "cuda":
        return asdict(measure(decode, shelf.device))
    torch.cuda.reset_peak_memory_stats()
    return asdict(measure(decode, shelf.device)) | {"peak_bytes": torch.cuda.max_memory_allocated()}


def _copy(shelf: Shelf, size: int) -> Mapping[str, Any]:
    pixels = _picture(size).to(shelf.device)
    return asdict(measure(pixels.cpu, shelf.device))


def _png(size: int) -> Mapping[str, Any]:
    pixels = _picture(size)
    timing = measure(lambda: encode_image(pixels, OutputFormat.PNG, None, {}, ""), torch.device("cpu"))
    return asdict(timing) | {"kib": len(encode_image(pixels, OutputFormat.PNG, None, {}, "")) / 1024}


def _build(shelf: Shelf, name: str) -> Mapping[str, Any]:
    """How long random weights take to make: no file is read."""
    shelf.component(name)
    return {"ms": 1000 * shelf.build_s[name]}


def _builds(shelf: Shelf) -> list[str]:
    return list(shelf.architectures.components)


def _picture(size: int) -> Tensor:
    """A slope with a little noise, about as compressible as a photograph: (size, size, 3) uint8."""
    slope = torch.linspace(0, 200, size).reshape(1, size, 1).expand(size, size, 3)
    noise = torch.randn(size, size, 3, generator=torch.Generator().manual_seed(0)) * 4
    return (slope + noise + 20).clamp(0, 255).to(torch.uint8)
