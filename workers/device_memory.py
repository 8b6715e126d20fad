"""How full a GPU's memory is, for Prometheus. Of a CPU nothing is told: its memory is the machine's, not a worker's."""

from collections.abc import Iterator

import torch
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


class DeviceMemory(Collector):
    """Asks the device at each scrape.

    used: what no batch of this worker could have now, other processes' memory included; what torch keeps in store for
    the next batch is not in it. peak: the most that this worker's tensors have taken at once.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def collect(self) -> Iterator[GaugeMetricFamily]:
        free_bytes, total_bytes = torch.cuda.mem_get_info(self._device)
        spare_bytes = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        for name, documentation, value in (
            (
                "used",
                "GPU memory that is taken, spare memory of this worker left out",
                total_bytes - free_bytes - spare_bytes,
            ),
            (
                "peak",
                "The most GPU memory that this worker's tensors took",
                torch.cuda.max_memory_allocated(self._device),
            ),
            ("total", "GPU memory there is", total_bytes),
        ):
            yield GaugeMetricFamily(f"darkroom_gpu_memory_{name}_bytes", documentation, value=value)
