"""One image in flight."""

import itertools
from dataclasses import dataclass, field

from torch import Tensor

from workers.engine.scheduler import Priority


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """What to draw, in diffusers' names. Sizes in pixels; one seed, one image."""

    model: str
    prompt: str
    negative_prompt: str | None
    height: int
    width: int
    num_inference_steps: int
    guidance_scale: float
    true_cfg_scale: float
    max_sequence_length: int
    seed: int


@dataclass(frozen=True, slots=True)
class BatchKey:
    """What rows of one forward must share. All else is free to differ by row. text_length: T5 tokens."""

    model: str
    height: int
    width: int
    text_length: int


@dataclass(frozen=True, slots=True)
class Conditioning:
    """A prompt as the transformer takes it.

    prompt_embeds: (1, L, D); pooled_prompt_embeds: (1, P). On the pipeline's device, in its dtype.
    """

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor

    @property
    def size_bytes(self) -> int:
        return self.prompt_embeds.nbytes + self.pooled_prompt_embeds.nbytes


@dataclass(frozen=True, slots=True)
class Guidance:
    """How a request is guided.

    embedded: given to the transformer as an input, where it takes one. cfg_scale: weight of classifier-free guidance,
    with `negative_prompt` as its unconditional side; `negative_prompt` is None when there is none and the request is
    one row of the batch instead of two.
    """

    embedded: float
    cfg_scale: float
    negative_prompt: str | None


@dataclass(frozen=True, slots=True)
class Schedule:
    """The noise levels of one request, computed once.

    sigmas: N + 1 float32 values from near 1 to 0. timesteps: N, 1000 * sigma as the noise scheduler rounds it.
    sigma_steps: N, from each sigma to the next.
    """

    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]
    sigma_steps: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        steps = tuple(after - before for before, after in itertools.pairwise(self.sigmas))
        object.__setattr__(self, "sigma_steps", steps)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where an image stood. latents: (1, ...) on the CPU, in the model's dtype, after `step_index` steps."""

    latents: Tensor
    step_index: int


@dataclass(slots=True, eq=False)
class DenoiseRequest:
    """One image from its prompt to its pixels; the only lasting truth about it. Fields by lifetime."""

    # Given, for life. Times are on the engine's clock. has_siblings: its job has other images, and waits for them.
    # resume: where an earlier attempt left off.
    id: str
    spec: ImageSpec
    arrival_s: float
    priority: Priority = Priority.NORMAL
    deadline_s: float | None = None
    has_siblings: bool = False
    resume: Checkpoint | None = None
    key: BatchKey = field(init=False)
    num_inference_steps: int = field(init=False)

    # Set when it is admitted.
    guidance: Guidance = field(init=False)
    conditioning: Conditioning = field(init=False)
    negative: Conditioning | None = field(init=False, default=None)
    schedule: Schedule = field(init=False)
    rows: int = field(init=False, default=1)  # in a batch: two with classifier-free guidance

    # Changed by each step. Its latents are one row of what came out of the last step's batch, (N, ...).
    stack: Tensor = field(init=False)
    place: int = 0
    step_index: int = 0
    remaining_steps: int = field(init=False)
    largest_batch: int = 0

    # When something was last taken from it on the way, on the engine's clock.
    previewed_at_s: float = 0.0
    saved_at_s: float = 0.0
    saved_step: int = 0

    # Measured, in seconds on the engine's clock. gpu_s: its share of the forwards that it was part of, by rows.
    # promised_s: from its admission to its pixels, as it looked then.
    text_encode_s: float = 0.0
    admitted_at_s: float = 0.0
    promised_s: float = 0.0
    denoise_s: float = 0.0
    vae_decode_s: float = 0.0
    drawn_at_s: float = 0.0
    gpu_s: float = 0.0
    resumed_step: int = 0

    @property
    def latents(self) -> Tensor:
        """(1, ...) in the pipeline's layout."""
        return self.stack[self.place : self.place + 1]

    def __post_init__(self) -> None:
        spec = self.spec
        self.key = BatchKey(spec.model, spec.height, spec.width, spec.max_sequence_length)
        self.num_inference_steps = self.remaining_steps = spec.num_inference_steps
