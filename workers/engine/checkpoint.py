"""A half-developed image as bytes: where it stands, and of what request.

On a CPU the resumed image is byte for byte the uninterrupted one. A checkpoint of anything else (other settings, other
weights, a damaged file) is no checkpoint: it is ignored, never trusted.
"""

import dataclasses
import hashlib
import json

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from workers.engine.report import Saved
from workers.engine.request import Checkpoint, DenoiseRequest, ImageSpec


def take_checkpoint(request: DenoiseRequest) -> Saved:
    request.saved_step = request.step_index
    return Saved(request, Checkpoint(request.latents.cpu().clone(), request.step_index))


def resume(request: DenoiseRequest) -> None:
    """Put an admitted request where its checkpoint stood, if there is one that fits its latents."""
    checkpoint, start = request.resume, request.latents
    if checkpoint is None or not 0 < checkpoint.step_index <= request.spec.num_inference_steps:
        return
    if checkpoint.latents.shape != start.shape or checkpoint.latents.dtype != start.dtype:
        return
    request.stack, request.place = checkpoint.latents.to(start.device), 0
    request.step_index = request.resumed_step = request.saved_step = checkpoint.step_index
    request.remaining_steps = request.spec.num_inference_steps - checkpoint.step_index


def fingerprint(spec: ImageSpec, model_revision: str) -> str:
    """Name all that the latents on the way depend on."""
    return json.dumps([dataclasses.asdict(spec), model_revision], sort_keys=True)


def to_bytes(checkpoint: Checkpoint, fingerprint: str) -> bytes:
    """Write it as safetensors, sealed."""
    return save(
        {
            "latents": checkpoint.latents.contiguous(),
            "step_index": torch.tensor(checkpoint.step_index),
            "seal": _seal(checkpoint, fingerprint),
        }
    )


def from_bytes(data: bytes, fingerprint: str) -> Checkpoint | None:
    """Read it back; None unless it is whole and of this fingerprint."""
    try:
        tensors = load(data)
        checkpoint = Checkpoint(tensors["latents"], int(tensors["step_index"]))
        whole = torch.equal(tensors["seal"], _seal(checkpoint, fingerprint))
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError, RuntimeError):
        return None
    return checkpoint if whole else None


def _seal(checkpoint: Checkpoint, fingerprint: str) -> Tensor:
    """(32,) uint8: one digest over the request, the step and every bit of the latents."""
    latents = checkpoint.latents.contiguous()
    words = f"{fingerprint} {checkpoint.step_index} {latents.dtype} {tuple(latents.shape)} "
    digest = hashlib.sha256(words.encode())
    digest.update(latents.view(torch.uint8).numpy().data)
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)
