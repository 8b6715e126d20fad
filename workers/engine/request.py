"""One image in flight."""

from dataclasses import dataclass, field

from torch import Tensor


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
    """What rows of one forward must share. All else is free to differ by row."""

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
    """

    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]


@dataclass(slots=True, eq=False)
class DenoiseRequest:
    """One image from its prompt to its last step; the only lasting truth about it. Fields by lifetime."""

    # Given, for life.
    id: str
    spec: ImageSpec
    arrival: int

    # Set when it is admitted.
    key: BatchKey = field(init=False)
    guidance: Guidance = field(init=False)
    conditioning: Conditioning = field(init=False)
    negative: Conditioning | None = field(init=False, default=None)
    schedule: Schedule = field(init=False)

    # Changed by each step. latents: (1, ...) in the pipeline's layout.
    latents: Tensor = field(init=False)
    step_index: int = 0
    largest_batch: int = 0

    # Measured, in seconds on the engine's clock.
    text_encode_s: float = 0.0
    admitted_at_s: float = 0.0
    denoise_s: float = 0.0
    vae_decode_s: float = 0.0

    @property
    def rows(self) -> int:
        """Rows it takes in a batch: two with classifier-free guidance."""
        return 1 if self.negative is None else 2

    @property
    def done(self) -> bool:
        return self.step_index >= self.spec.num_inference_steps
