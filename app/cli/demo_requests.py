"""What the demo asks for: both families, few steps and many, two sizes, all at once."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class DemoRequest:
    """One picture; sizes in pixels."""

    model: str
    prompt: str
    num_inference_steps: int
    guidance_scale: float
    seed: int
    width: int = 128
    height: int = 128
    negative_prompt: str | None = None

    def body(self) -> dict[str, object]:
        """The request as the API has it."""
        return asdict(self)

    @property
    def label(self) -> str:
        return f"{self.model}, {self.num_inference_steps} {'step' if self.num_inference_steps == 1 else 'steps'}"


_SCHNELL, _DEV, _SD3 = "tiny-flux-schnell", "tiny-flux-dev", "tiny-sd3"

DEMO_REQUESTS = (
    DemoRequest(_SCHNELL, "a small red ring on the left on a blue background", 1, 0.0, 1),
    DemoRequest(_SCHNELL, "a small red ring on the left on a blue background", 4, 0.0, 1),
    DemoRequest(_SCHNELL, "a large yellow star in the centre on a purple background", 2, 0.0, 7),
    DemoRequest(_SCHNELL, "a green triangle on the left and a white circle on the right", 4, 0.0, 11, width=192),
    DemoRequest(_DEV, "a large pink heart in the centre on a plain white background", 28, 3.5, 3),
    DemoRequest(_DEV, "a large pink heart in the centre on a plain white background", 12, 3.5, 3),
    DemoRequest(_DEV, "an orange square at the top and a teal diamond at the bottom", 20, 2.0, 21),
    DemoRequest(_DEV, "a big yellow cross in the top right on a plain black background", 16, 5.0, 5, width=192),
    DemoRequest(_DEV, "a white cross in the centre on a striped red and green background", 8, 3.5, 42),
    DemoRequest(_SD3, "a small red ring on the left on a blue background", 28, 4.5, 1),
    DemoRequest(_SD3, "a large teal square on the left on a striped black and white background", 20, 7.0, 13),
    DemoRequest(_SD3, "a purple star on the right and an orange circle on the left", 24, 3.5, 8, width=192),
    DemoRequest(
        _SD3, "a medium-sized green diamond in the centre", 14, 5.0, 34, negative_prompt="a striped background"
    ),
    DemoRequest(_SD3, "a small black heart at the bottom on a yellow to pink gradient background", 6, 2.0, 55),
)
