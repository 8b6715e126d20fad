"""What an image file costs. `python -m tests.benchmarks.image_encode`

Every way of writing one, side by side in one run, on three kinds of pictures: a drawing (a bundled model's, enlarged),
a photograph (smooth shades, texture at every scale and a sensor's grain, made by code) and noise, which nothing
compresses. Milliseconds are CPU time of the one thread that encodes, medians of the repeats, so that a busy machine
spoils them less. Every PNG is decoded and compared before it is timed. `results/image-encode.json` keeps the table.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from app.jobs.schema import OutputFormat
from tests.benchmarks.report import write_json
from workers.images import encode_image
from workers.tiny.drawing import Artist
from workers.tiny.render import Picture

BUNDLED = Path(__file__).parents[2] / "workers" / "tiny" / "models"
MODEL = "tiny-flux-schnell"
SIZES = (512, 1024)
BASELINE = "PNG, Pillow level 1"
LIBRARIES = ("isal", "numpy", "pillow")

Encode = Callable[[Picture], bytes]


@dataclass(frozen=True, slots=True)
class Cost:
    """One way of writing one picture. `times_baseline` is Pillow's level 1 divided by this: above 1 is faster."""

    picture: str
    size: int
    encoder: str
    cpu_ms: float
    kib: float
    times_baseline: float


def drawing(size: int) -> Picture:
    artist = Artist(BUNDLED, [MODEL], torch.device("cpu"))
    (picture,) = artist.draw([artist.spec(MODEL, "a large red ring in the center on a blue background", seed=1)])
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS))


def photograph(size: int) -> Picture:
    """Shades, texture whose amplitude falls with its frequency as in pictures of the world, and grain."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:size, 0:size] / size
    shades = np.stack([120 + 80 * np.sin(3 * x + 2 * y), 110 + 90 * np.cos(4 * y - x), 90 + 100 * x * y], axis=-1)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None, :])
    frequency[0, 0] = 1
    spectrum = np.fft.fft2(random.standard_normal((size, size, 3)), axes=(0, 1))
    texture = np.fft.ifft2(spectrum / frequency[..., None], axes=(0, 1)).real
    grain = random.normal(0, 2, (size, size, 3))
    picture: Picture = (shades + 25 * texture / texture.std() + grain).clip(0, 255).astype(np.uint8)
    return picture


def noise(size: int) -> Picture:
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)


PICTURES: Mapping[str, Callable[[int], Picture]] = {"drawing": drawing, "photograph": photograph, "noise": noise}


def ours(output_format: OutputFormat) -> Encode:
    parameters = {"prompt": "a large red ring in the center on a blue background", "seed": 1}
    return lambda picture: encode_image(torch.from_numpy(picture), output_format, None, parameters, "a large red ring")


def pillow_png(**options: int) -> Encode:
    def encode(picture: Picture) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG", **options)
        return buffer.getvalue()

    return encode


ENCODERS: Mapping[str, Encode] = {
    "PNG, ours": ours(OutputFormat.PNG),
    "PNG, Pillow default": pillow_png(),
    BASELINE: pillow_png(compress_level=1),
    "JPEG 90": ours(OutputFormat.JPEG),
    "WebP 90": ours(OutputFormat.WEBP),
}


def measure(encode: Encode, picture: Picture, repeats: int) -> tuple[float, float]:
    """Median CPU ms of this thread, and KiB."""
    data = encode(picture)
    if data.startswith(b"\x89PNG") and not np.array_equal(np.asarray(Image.open(io.BytesIO(data))), picture):
        raise ValueError("a PNG file came back with other pixels")
    times_ms = []
    for _ in range(repeats):
        started_s = time.thread_time()
        encode(picture)
        times_ms.append((time.thread_time() - started_s) * 1000)
    return statistics.median(times_ms), len(data) / 1024


def costs(repeats: int) -> Iterator[Cost]:
    for size in SIZES:
        for name, make in PICTURES.items():
            picture = make(size).copy()
            measured = {encoder: measure(encode, picture, repeats) for encoder, encode in ENCODERS.items()}
            baseline_ms, _ = measured[BASELINE]
            for encoder, (cpu_ms, kib) in measured.items():
                yield Cost(name, size, encoder, round(cpu_ms, 1), round(kib, 1), round(baseline_ms / cpu_ms, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(title=f"image files, medians of {options.repeats}")
    for column in ("picture", "size", "encoder", "CPU ms", "KiB", "times as fast as Pillow level 1"):
        table.add_column(column, justify="left" if column in ("picture", "encoder") else "right")
    found = list(costs(options.repeats))
    for cost in found:
        row = (cost.picture, cost.size, cost.encoder, cost.cpu_ms, f"{cost.kib:.0f}", cost.times_baseline)
        table.add_row(*map(str, row), end_section=cost.encoder == list(ENCODERS)[-1])
    Console(width=100).print(table)
    write_json("image-encode", {"costs": [asdict(cost) for cost in found]}, libraries=LIBRARIES)


if __name__ == "__main__":
    main()
