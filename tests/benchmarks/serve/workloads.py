"""Who asks for what, and when: mixes of requests, and their arrivals.

The mixes keep the proportions and the steps of what real servers are asked for; their sides are an eighth of the
original ones, but never below the bundled models' 64 pixels.

    mix-res     sides of 512, 768, 1024 and 1536 pixels, 20 to 35 steps: Dataset C of vLLM-Omni's diffusion benchmarks
    mix-steps   1024 pixels, 4, 28 or 50 steps
    mix-small   256 and 512 pixels; an eighth of 256 is too small, so both are a quarter
    burst       mix-steps, in bursts
"""

import random
from dataclasses import dataclass

from workers.tiny.prompts import held_out_prompts

MODEL = "tiny-flux-dev"
GUIDANCE_SCALE = 3.5
# The T5 tokens of a prompt: enough for the prompts asked for, and in better proportion to 36 to 144 image tokens than
# the models' default of 128. Real Flux pads to 512 beside the 4096 of a picture of 1024x1024.
MAX_SEQUENCE_LENGTH = 32
_LONGEST_PROMPT_CHARS = 90


@dataclass(frozen=True, slots=True)
class RequestClass:
    """Requests that cost the same. side: pixels, of a square; share: of all requests."""

    side: int
    num_inference_steps: int
    share: float

    @property
    def name(self) -> str:
        return f"{self.side}px/{self.num_inference_steps}"


@dataclass(frozen=True, slots=True)
class Mix:
    """arrival_cv: coefficient of variation of the times between arrivals; 1 is Poisson, above it bursts."""

    name: str
    classes: tuple[RequestClass, ...]
    arrival_cv: float = 1.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request. due_s: when it is to be sent, from the start of the load."""

    due_s: float
    kind: RequestClass
    prompt: str
    seed: int

    def body(self) -> dict[str, object]:
        """The request in the words of Darkroom's API, which the other servers here understand as well."""
        return {
            "model": MODEL,
            "prompt": self.prompt,
            "width": self.kind.side,
            "height": self.kind.side,
            "num_inference_steps": self.kind.num_inference_steps,
            "guidance_scale": GUIDANCE_SCALE,
            "max_sequence_length": MAX_SEQUENCE_LENGTH,
            "seed": self.seed,
        }


_STEPS = (RequestClass(128, 4, 0.5), RequestClass(128, 28, 0.4), RequestClass(128, 50, 0.1))

MIXES = {
    mix.name: mix
    for mix in (
        Mix(
            "mix-res",
            (
                RequestClass(64, 20, 0.15),
                RequestClass(96, 20, 0.25),
                RequestClass(128, 25, 0.45),
                RequestClass(192, 35, 0.15),
            ),
        ),
        Mix("mix-steps", _STEPS),
        Mix("mix-small", (RequestClass(64, 20, 0.8), RequestClass(128, 20, 0.2))),
        Mix("burst", _STEPS, arrival_cv=4.0),
    )
}


def arrivals(mix: Mix, rate: float, count: int, seed: int) -> list[Arrival]:
    """Draw a load of `rate` requests a second. The same seed gives the same requests at every rate, closer or wider."""
    rng = random.Random(f"{mix.name} {seed}")
    prompts = [prompt.text for prompt in held_out_prompts(400, 1, seed) if len(prompt.text) <= _LONGEST_PROMPT_CHARS]
    # A Gamma distribution of shape k has the coefficient of variation 1 / sqrt(k).
    shape = mix.arrival_cv**-2
    due_s = 0.0
    drawn = []
    for _ in range(count):
        due_s += rng.gammavariate(shape, 1 / (shape * rate))
        kind = rng.choices(mix.classes, [kind.share for kind in mix.classes])[0]
        drawn.append(Arrival(due_s, kind, rng.choice(prompts), rng.randrange(2**31)))
    return drawn
