"""The public JSON that a client sends."""

import difflib
import re
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from app.jobs.schema import OutputFormat, Priority

MAX_INT = 2**63 - 1
MAX_DEADLINE_S = 86_400

# What other servers call the same thing.
ALIASES = {
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "num_images": "n",
    "num_outputs": "n",
    "num_images_per_prompt": "n",
    "image_size": "size",
}

# JSON can say what UTF-8 cannot (half of a surrogate pair), and a NUL that ends the text for whoever reads it next.
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")


def _writable(text: str) -> str:
    if found := _UNWRITABLE.search(text):
        at = found.start()
        raise PydanticCustomError("unwritable", "character {at} is a NUL or half of a surrogate pair", {"at": at})
    return text


Text = Annotated[str, AfterValidator(_writable)]
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_writable)]
MetadataValue = Annotated[str, StringConstraints(max_length=512), AfterValidator(_writable)]
Count = Annotated[int, Field(ge=1, le=MAX_INT)]


class WebhookEvent(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


def invalid(code: str, message: str, param: str | None = None) -> PydanticCustomError:
    """An error of ours inside a validator: the code and field that the error body will show."""
    # The message goes in as a value: a brace in it would be taken for a placeholder of the template.
    return PydanticCustomError("darkroom", "{message}", {"code": code, "param": param, "message": message})


class ImageRequest(BaseModel):
    """A prompt and how to draw it. What is left out takes the model's default; nothing is clamped."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        json_schema_extra={
            "examples": [
                {
                    "prompt": "a small red ring on the left on a blue background",
                    "model": "tiny-sd3",
                    "num_inference_steps": 20,
                    "guidance_scale": 3.5,
                    "seed": 42,
                }
            ]
        },
    )

    prompt: Text = Field(description="What to draw.")
    model: str | None = Field(default=None, description="A name from GET /v1/models; none: the first of them.")
    negative_prompt: Text | None = Field(
        default=None, description="What to steer away from; needs classifier-free guidance to have an effect."
    )
    width: Count | None = Field(default=None, description="Pixels; with `height`, or use `size`.")
    height: Count | None = Field(default=None, description="Pixels.")
    size: str | None = Field(default=None, description="`WIDTHxHEIGHT`. Alias: `image_size`.", examples=["128x128"])
    num_inference_steps: Count | None = Field(
        default=None, description="Denoising steps: more take longer and are sharper, up to a point. Alias: `steps`."
    )
    guidance_scale: float | None = Field(
        default=None, description="How strictly to follow the prompt. Aliases: `guidance`, `cfg_scale`."
    )
    true_cfg_scale: float | None = Field(
        default=None, description="Flux only: classifier-free guidance with `negative_prompt`, above 1."
    )
    seed: int | None = Field(
        default=None, ge=0, le=MAX_INT, description="The same seed draws the same picture; none: a random one."
    )
    n: Count = Field(
        default=1,
        description="Images to draw, with seeds `seed`, `seed + 1`, ..."
        " Aliases: `num_images`, `num_outputs`, `num_images_per_prompt`.",
    )
    max_sequence_length: Count | None = Field(default=None, description="T5 tokens of the prompt that are read.")
    output_format: Annotated[OutputFormat, Field(strict=False)] = Field(
        default=OutputFormat.PNG, description="How the images are encoded."
    )
    output_compression: int | None = Field(default=None, ge=0, le=100, description="Quality of JPEG and WebP.")
    priority: Annotated[Priority, Field(strict=False)] = Field(
        default=Priority.NORMAL,
        description="How soon it is wanted. While all three wait, high gets 8 times the share of normal, and normal"
        " that of low.",
    )
    deadline_seconds: float | None = Field(
        default=None,
        gt=0,
        le=MAX_DEADLINE_S,
        description="Seconds from submission: a wish, not a limit. Work nears the front as its deadline nears; a job"
        " that is late is still finished.",
    )
    webhook_url: str | None = Field(
        default=None, description="Where to post when the job has ended: https, a public address. Not on every server."
    )
    webhook_events: Annotated[tuple[Annotated[WebhookEvent, Field(strict=False)], ...], Field(strict=False)] = Field(
        default=(), description="Of which ends to tell; none: of all. Needs `webhook_url`."
    )
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] = Field(
        default_factory=dict, description="Your own words about the job, given back with it."
    )

    @model_validator(mode="before")
    @classmethod
    def _known_names(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        named: dict[str, Any] = {}
        for given, value in data.items():
            name = ALIASES.get(given, given)
            if name not in cls.model_fields:
                shown = given[:64].encode("utf-8", "backslashreplace").decode()
                close = difflib.get_close_matches(shown, [*cls.model_fields, *ALIASES], n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise invalid("unknown_parameter", f"unknown parameter {shown!r}{hint}", shown)
            # Lists are wrong in any case, and comparing deep ones would end in a RecursionError.
            if name in named and (isinstance(value, list | dict) or named[name] != value):
                raise invalid(f"invalid_{name}", f"{name} is given twice, with different values", name)
            named[name] = value
        return named

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.prompt.strip():
            raise invalid("invalid_prompt", "prompt is empty", "prompt")
        if self.size is not None and (self.width is not None or self.height is not None):
            raise invalid("invalid_size", "give either size, or width and height", "size")
        if (self.width is None) != (self.height is None):
            raise invalid("invalid_size", "width and height go together", "height" if self.height is None else "width")
        if self.output_compression is not None and self.output_format is OutputFormat.PNG:
            raise invalid("invalid_output_compression", "png loses nothing; ask for jpeg or webp", "output_compression")
        if self.webhook_events and self.webhook_url is None:
            raise invalid("invalid_webhook_events", "webhook_events goes with a webhook_url", "webhook_events")
        if self.seed is not None and self.seed + self.n - 1 > MAX_INT:
            raise invalid("invalid_seed", f"the last image's seed would be above {MAX_INT}", "seed")
        return self
