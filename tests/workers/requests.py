"""Requests for tests."""

from workers.engine.request import DenoiseRequest, ImageSpec


def make_spec(**changes: object) -> ImageSpec:
    fields: dict[str, object] = {
        "model": "tiny-sd3",
        "prompt": "a small red ring",
        "negative_prompt": None,
        "height": 64,
        "width": 64,
        "num_inference_steps": 3,
        "guidance_scale": 3.5,
        "true_cfg_scale": 1.0,
        "max_sequence_length": 32,
        "seed": 7,
    }
    return ImageSpec(**(fields | changes))  # type: ignore[arg-type]


def make_request(name: str, arrival: int = 0, **changes: object) -> DenoiseRequest:
    return DenoiseRequest(id=name, spec=make_spec(**changes), arrival=arrival)
