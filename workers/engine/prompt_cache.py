"""Prompts that were encoded before: images of one job share theirs, and most guided requests the empty negative one."""

from collections import OrderedDict
from dataclasses import dataclass

from workers.engine.request import Conditioning


@dataclass(frozen=True, slots=True)
class PromptKey:
    """All that an encoding depends on."""

    model: str
    prompt: str
    max_sequence_length: int


class PromptCache:
    """The most recently used conditionings, up to `max_bytes` of tensors on the device."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[PromptKey, Conditioning] = OrderedDict()
        self.size_bytes = 0

    def __contains__(self, key: PromptKey) -> bool:
        return key in self._kept

    def get(self, key: PromptKey) -> Conditioning | None:
        conditioning = self._kept.get(key)
        if conditioning is not None:
            self._kept.move_to_end(key)
        return conditioning

    def put(self, key: PromptKey, conditioning: Conditioning) -> None:
        """Keep it, and let the least recently used go. One that is larger than the whole cache is not kept."""
        if conditioning.size_bytes > self._max_bytes or key in self._kept:
            return
        self._kept[key] = conditioning
        self.size_bytes += conditioning.size_bytes
        while self.size_bytes > self._max_bytes:
            _, dropped = self._kept.popitem(last=False)
            self.size_bytes -= dropped.size_bytes

    def clear(self) -> None:
        self._kept.clear()
        self.size_bytes = 0
