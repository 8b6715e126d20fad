"""/hf: what huggingface_hub's InferenceClient and its kin send to an endpoint for text-to-image.

https://huggingface.co/docs/inference-providers/tasks/text-to-image
"""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.accept import AskerDep
from app.api.deps import ServicesDep
from app.api.pictures import read_picture
from app.api.schemas import Text
from app.api.synchronous import ERRORS, draw, image_request
from app.errors import InvalidRequestError

router = APIRouter(prefix="/hf", tags=["compatible with other APIs"])


class HFRequest(BaseModel):
    model_config = ConfigDict(extra="ignore")

    inputs: Text = Field(description="The prompt.")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="Any fields of `POST /v1/images`; others are refused. One image an answer."
    )


@router.post(
    "/{model}",
    summary="Draw an image and wait for its bytes, as a Hugging Face endpoint does",
    response_class=Response,
    responses={
        **ERRORS,
        200: {
            "description": "The image.",
            "content": {kind: {} for kind in ("image/png", "image/jpeg", "image/webp")},
        },
    },
)
@router.post("/models/{model}", include_in_schema=False)
async def text_to_image(
    model: Annotated[str, Path(description="A name from GET /v1/models.", max_length=128)],
    body: HFRequest,
    request: Request,
    services: ServicesDep,
    asker: AskerDep,
) -> Response:
    """`InferenceClient(model="http://HOST/hf/MODEL").text_to_image(...)`. The job's id is in the header `x-job-id`."""
    asked = image_request({**body.parameters, "prompt": body.inputs, "model": model})
    if asked.n != 1:
        raise InvalidRequestError("invalid_n", f"n is {asked.n}; the answer is the bytes of one image", param="n")
    drawn = await draw(request, services, asker, asked, "hf")
    [image] = drawn.images
    headers = {"x-job-id": drawn.record.job.id, "x-seed": str(image.seed)}
    return Response(await read_picture(services.store, image), media_type=image.content_type, headers=headers)
