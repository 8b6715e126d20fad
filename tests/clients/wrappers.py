"""Run in the environment of requirements.txt: `python wrappers.py CLIENT BASE_URL PROMPT` prints what it got, as JSON.

By itself: nothing of this repository is installed there.
"""

import json
import sys
import warnings
from typing import Any

MODEL = "tiny-flux-schnell"


def litellm(base_url: str, prompt: str) -> dict[str, Any]:
    import litellm

    def generate(model: str, **fields: object) -> Any:
        return litellm.image_generation(
            prompt=prompt, model=f"openai/{model}", api_base=f"{base_url}/v1", api_key="none", **fields
        )

    one = generate(MODEL, seed=7, num_inference_steps=4, size="128x128")
    two = generate(MODEL, n=2)  # it lets `response_format` pass only with models whose names it knows
    try:
        generate("dall-e-3")
    except litellm.NotFoundError as error:
        refusal = str(error)
    return {
        "b64_json": [image.b64_json for image in one.data],
        "urls": [image.url for image in two.data],
        "refusal": refusal,
    }


def langchain(base_url: str, prompt: str) -> dict[str, Any]:
    from langchain_community.utilities.dalle_image_generator import DallEAPIWrapper

    def wrapper(model: str, **fields: Any) -> DallEAPIWrapper:
        return DallEAPIWrapper(model=model, base_url=f"{base_url}/v1", api_key="none", **fields)

    urls = wrapper(MODEL, size="128x128", n=2).run(prompt)
    try:
        wrapper("dall-e-3").run(prompt)
    except Exception as error:
        refusal = str(error)
    return {"urls": urls.split("\n"), "refusal": refusal}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    client, base_url, prompt = sys.argv[1:]
    print(json.dumps({"litellm": litellm, "langchain": langchain}[client](base_url, prompt)))
