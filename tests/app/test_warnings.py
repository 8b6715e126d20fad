"""A job's warnings, as its author sees them."""

from tests.app.gateway import Gateway


async def test_a_good_request_has_none(gateway: Gateway) -> None:
    assert (await gateway.submit(prompt="a small red ring on the left", seed=1))["warnings"] == []


async def test_each_names_its_field_and_a_value_to_try(gateway: Gateway) -> None:
    job = await gateway.submit(prompt="a ring " * 60, model="tiny-flux-schnell", steps=9, guidance=3.5)
    assert [(warning["code"], warning["param"]) for warning in job["warnings"]] == [
        ("prompt_beyond_clip", "prompt"),
        ("steps_too_many", "num_inference_steps"),
        ("guidance_ignored", "guidance_scale"),
    ]
    assert "has 122 tokens for CLIP, which reads the first 77" in job["warnings"][0]["message"]
    assert job["warnings"][1]["message"].endswith("Try num_inference_steps 4.")
