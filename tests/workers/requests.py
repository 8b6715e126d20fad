"""Requests for tests."""

from workers.engine.cost import CostModel, Stage, step_table
from workers.engine.request import DenoiseRequest, ImageSpec
from workers.engine.scheduler import Priority


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


def make_request(
    name: str, arrival_s: float = 0.0, priority: Priority = Priority.NORMAL, **changes: object
) -> DenoiseRequest:
    return DenoiseRequest(id=name, spec=make_spec(**changes), arrival_s=arrival_s, priority=priority)


def flat_cost(*models: str) -> CostModel:
    """What is known of a machine on which every forward of 64x64 pixels takes a second: whoever may share one does."""
    return CostModel(
        step_table(
            {"stage": stage, "model": model, "height": 64, "width": 64, "rows": rows, "ms": 1000}
            for stage in Stage
            for model in models or ("tiny-sd3",)
            for rows in (1, 64)
        )
    )
