"""What the engine says after each call. Pixels and latents in it are on the CPU."""

from dataclasses import dataclass, field
from enum import StrEnum

from torch import Tensor

from workers.engine.cost import Stage
from workers.engine.request import BatchKey, Checkpoint, DenoiseRequest


class FailureReason(StrEnum):
    OUT_OF_MEMORY = "out_of_memory"
    INVALID_OUTPUT = "invalid_output"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, slots=True)
class Worked:
    """One forward that succeeded: `rows` of equal `key` took `seconds` together.

    images: how many came further by it. A guided image has two rows; one whose step gave no numbers stays where it was.
    """

    stage: Stage
    key: BatchKey
    rows: int
    seconds: float
    images: int


@dataclass(frozen=True, slots=True)
class Drawn:
    """A finished image. pixels: (height, width, 3) uint8."""

    request: DenoiseRequest
    pixels: Tensor


@dataclass(frozen=True, slots=True)
class Failed:
    """A request that will not be finished; `cause` is for the log, not for its author.

    `fits`: (height, width) of the largest image that this model did draw here, when memory was the reason.
    """

    request: DenoiseRequest
    reason: FailureReason
    cause: BaseException | None
    fits: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """How an unfinished image looks. pixels: (height / 8, width / 8, 3) uint8, after `step_index` steps."""

    request: DenoiseRequest
    step_index: int
    pixels: Tensor


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint, to be kept until its request is over."""

    request: DenoiseRequest
    checkpoint: Checkpoint


@dataclass(slots=True)
class Report:
    """What one call did, in order.

    moves: model -> seconds that its weights took to the device, and others' from it. prompt_hits: prompts that the
    cache knew. resumed: those that go on from a checkpoint. splits: why batches were halved. repaired: rows that were
    numbers again in float32. overlooked: why a preview or a checkpoint could not be taken, which is nobody's failure.
    """

    worked: list[Worked] = field(default_factory=list)
    drawn: list[Drawn] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    previews: list[Preview] = field(default_factory=list)
    saved: list[Saved] = field(default_factory=list)
    moves: dict[str, float] = field(default_factory=dict)
    prompt_hits: int = 0
    resumed: list[DenoiseRequest] = field(default_factory=list)
    splits: list[FailureReason] = field(default_factory=list)
    repaired: int = 0
    overlooked: list[Exception] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.worked or self.drawn or self.failed or self.saved or self.moves or self.prompt_hits)
