"""Floating-point operations: of a step, counted on the meta device, and those a device can do in a second."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks.gpu.architectures import Architectures, Model
from tests.benchmarks.gpu.batches import step_batch
from tests.benchmarks.gpu.shelf import Shelf
from tests.benchmarks.gpu.timing import measure

# Dense bf16 that a large matrix product reaches on these chips, of 989e12 on paper; both are the same chip.
_PEAK_FLOPS = {"H100": 790e12, "H200": 790e12}
_LAYERS = ("num_layers", "num_single_layers")
_SLOWER_VARIANTS = ("PCIe", "NVL", "MIG")


class StepFlops:
    """FLOPs of one step's forward, two for each multiply-add."""

    def __init__(self, architectures: Architectures) -> None:
        self._architectures = architectures
        self._counted: dict[tuple[str, int], float] = {}

    def __call__(self, model: Model, size: int, rows: int) -> float:
        """Count a square image's step: each row costs the same, and so does each layer of a kind."""
        key = (model.name, size)
        if key not in self._counted:
            config = self._architectures.components[model.transformer].config
            # Two of each at least: SD3's last layer is cheaper than the others.
            few = {name: 2 for name in _LAYERS if name in config}
            base = self._count(model, size, few)
            layer_flops = {name: self._count(model, size, few | {name: 3}) - base for name in few}
            self._counted[key] = base + sum((config[name] - 2) * layer_flops[name] for name in few)
        return self._counted[key] * rows

    def _count(self, model: Model, size: int, layers: Mapping[str, int]) -> float:
        component = self._architectures.components[model.transformer]
        shallow = replace(component, config={**component.config, **layers})
        shelf = Shelf(Architectures({model.transformer: shallow}, {}), torch.device("meta"), torch.bfloat16)
        pipeline = shelf.step_pipeline(model, compiled=False)
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            pipeline.denoise(step_batch(shelf, model, pipeline, size, 1))
        return float(counter.get_total_flops())


def measured_peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Time a square matrix product: 8192 a side on a GPU."""
    side = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / (measure(lambda: a @ b, device).ms / 1000)


def peak_flops(name: str, measured: float) -> float:
    """Say what utilisation is a share of: the known peak of this GPU, or else what was measured here."""
    for chip, flops in _PEAK_FLOPS.items():
        if chip in name and not any(variant in name for variant in _SLOWER_VARIANTS):
            return flops
    return measured
