"""Which models' weights are on the device. Pure Python on plain data: whoever moves them asks here who has to leave."""

from collections.abc import Mapping

_ASSUMED_BYTES_PER_S = 10e9  # of a move that was never measured; PCIe 4 x16 could carry three times that
_NEWEST_SHARE = 0.5  # of the last move in what the next is thought to take


class Residency:
    """Models that share a device's memory: the least recently used leave for the one that is needed.

    sizes: bytes of each model's weights. budget_bytes: for all weights on the device at once; None if all of them fit,
    and then all are there from the start. With a budget none is, until it is brought. Raises ValueError for a model
    that alone is larger than the budget.
    """

    def __init__(self, sizes: Mapping[str, int], budget_bytes: int | None) -> None:
        self._sizes = dict(sizes)
        self._budget_bytes = sum(sizes.values()) if budget_bytes is None else budget_bytes
        for model, size_bytes in self._sizes.items():
            if size_bytes > self._budget_bytes:
                raise ValueError(
                    f"{model} takes {size_bytes} bytes, more than the {self._budget_bytes} bytes that all models on"
                    " the device may take together"
                )
        # Resident models, least recently used first.
        self._resident = list(self._sizes) if budget_bytes is None else []
        self._learned_s: dict[str, float] = {}

    @property
    def resident_bytes(self) -> int:
        return sum(self._sizes[model] for model in self._resident)

    def is_resident(self, model: str) -> bool:
        return model in self._resident

    def bring(self, model: str) -> list[str]:
        """Count `model` as used now and as on the device: who must leave before it comes, least recently used first."""
        if model in self._resident:
            self._resident.remove(model)
        leaving = []
        while self.resident_bytes + self._sizes[model] > self._budget_bytes:
            leaving.append(self._resident.pop(0))
        self._resident.append(model)
        return leaving

    def drop(self, model: str) -> None:
        """Count `model` as not on the device: it left, or never arrived."""
        if model in self._resident:
            self._resident.remove(model)

    def moved(self, model: str, seconds: float) -> None:
        """Learn what it took to bring `model`, its predecessors' leaving included."""
        before_s = self._learned_s.get(model, seconds)
        self._learned_s[model] = before_s + _NEWEST_SHARE * (seconds - before_s)

    def switch_s(self, model: str) -> float:
        """Seconds until `model` is on the device: 0 if it is, else by its last moves, or before any by its size."""
        if model in self._resident:
            return 0.0
        return self._learned_s.get(model, self._sizes[model] / _ASSUMED_BYTES_PER_S)
