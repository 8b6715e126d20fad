"""A request becomes a job: defaults filled in, every limit of its model checked. Nothing later checks again."""

import hashlib
import json
import re
import secrets
from typing import TypeVar

from app.api.schemas import ImageRequest
from app.catalog.catalog import Family, ModelCard, Range
from app.errors import InvalidRequestError
from app.jobs.schema import ImageJob

T = TypeVar("T")

_SIZE = re.compile(r"([0-9]{1,5})[xX]([0-9]{1,5})")
# Small enough to survive a client that keeps numbers as doubles.
_RANDOM_SEEDS = 2**32


def to_job(request: ImageRequest, card: ModelCard, tenant: str, *, max_prompt_chars: int, max_images: int) -> ImageJob:
    """Fix every setting, seeds included. Raises InvalidRequestError, which names the field and a value to try."""
    defaults, limits = card.defaults, card.limits
    for name, text in (("prompt", request.prompt), ("negative_prompt", request.negative_prompt or "")):
        if len(text) > max_prompt_chars:
            raise _invalid(name, f"{name} has {len(text)} characters; the limit is {max_prompt_chars}")
    if request.n > max_images:
        raise _invalid("n", f"n is {request.n}; the limit is {max_images}")
    width, height = _size(request, card)
    steps = _or_default(request.num_inference_steps, defaults.num_inference_steps)
    guidance_scale = _or_default(request.guidance_scale, defaults.guidance_scale)
    true_cfg_scale = _or_default(request.true_cfg_scale, 1.0)
    max_sequence_length = _or_default(request.max_sequence_length, defaults.max_sequence_length)
    _check_range("num_inference_steps", steps, limits.num_inference_steps, card)
    _check_range("guidance_scale", guidance_scale, limits.guidance_scale, card)
    _check_range("true_cfg_scale", true_cfg_scale, limits.guidance_scale, card)
    _check_range("max_sequence_length", max_sequence_length, Range(min=1, max=limits.max_sequence_length), card)
    if true_cfg_scale > 1:
        if card.family is not Family.FLUX:
            raise _invalid("true_cfg_scale", f"{card.name} takes classifier-free guidance as guidance_scale")
        if request.negative_prompt is None:
            raise _invalid("true_cfg_scale", "true_cfg_scale above 1 needs a negative_prompt, which may be empty")
    return ImageJob(
        id=f"img_{secrets.token_hex(16)}",
        tenant=tenant,
        model=card.name,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        width=width,
        height=height,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        true_cfg_scale=true_cfg_scale,
        max_sequence_length=max_sequence_length,
        seed=secrets.randbelow(_RANDOM_SEEDS) if request.seed is None else request.seed,
        n=request.n,
        output_format=request.output_format,
        output_compression=request.output_compression,
        priority=request.priority,
        deadline_s=request.deadline_seconds,
        metadata=request.metadata,
    )


def body_sha256(request: ImageRequest) -> str:
    """Tell requests apart: equal for the same fields with the same values, in whatever order and by whichever alias."""
    fields = request.model_dump(mode="json", exclude_unset=True)
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _size(request: ImageRequest, card: ModelCard) -> tuple[int, int]:
    width = _or_default(request.width, card.defaults.width)
    height = _or_default(request.height, card.defaults.height)
    if request.size is not None:
        match = _SIZE.fullmatch(request.size)
        if match is None:
            raise InvalidRequestError(
                "invalid_size", f"size is {request.size[:32]!r}; write it as WIDTHxHEIGHT, like 1024x768", param="size"
            )
        width, height = int(match[1]), int(match[2])
    if problems := card.size_problems(width, height):
        param = "size" if request.size is not None else problems[0].split(" ")[0]
        raise InvalidRequestError(
            "invalid_size", "; ".join(problems), param=param if param in ("width", "height") else "size"
        )
    return width, height


def _check_range(name: str, value: float, allowed: Range, card: ModelCard) -> None:
    if value not in allowed:
        raise _invalid(name, f"{name} is {value}; {card.name} takes {allowed.min:g} to {allowed.max:g}")


def _or_default(value: T | None, default: T) -> T:
    return default if value is None else value


def _invalid(name: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(f"invalid_{name}", message, param=name)
