"""Captions as the transformers take them, by the frozen text encoders: what `encode_prompt` of the pipelines gives."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from workers.tiny.tokenizers import CLIP_LENGTH
from workers.tiny.training.text import TextEncoders, Tokenizers, tokenize


@dataclass(frozen=True)
class Condition:
    """Features of B prompts: `context` (B, L, T5 width), one row of features a token; `pooled` (B, P)."""

    context: Tensor
    pooled: Tensor

    def __getitem__(self, prompts: slice | list[int]) -> "Condition":
        return Condition(self.context[prompts], self.pooled[prompts])

    def __add__(self, other: "Condition") -> "Condition":
        """The prompts of both, one after the other."""
        return Condition(torch.cat([self.context, other.context]), torch.cat([self.pooled, other.pooled]))

    def repeat(self, times: int) -> "Condition":
        return Condition(self.context.repeat(times, 1, 1), self.pooled.repeat(times, 1))

    def pick(self, tokens: Tensor) -> "Condition":
        """Keep these tokens of the context, a (K,) of indices."""
        return Condition(self.context[:, tokens.to(self.context.device)], self.pooled)

    def where(self, kept: Tensor, other: "Condition") -> "Condition":
        """These prompts where `kept` (B,) is true, and the other, a single one, elsewhere."""
        return Condition(
            torch.where(kept[:, None, None], self.context, other.context),
            torch.where(kept[:, None], self.pooled, other.pooled),
        )

    def half(self) -> "Condition":
        """In half precision on the CPU, for keeping many."""
        return Condition(self.context.half().cpu(), self.pooled.half().cpu())

    def to(self, device: torch.device) -> "Condition":
        return Condition(self.context.float().to(device), self.pooled.float().to(device))


@torch.no_grad()
def flux_condition(
    encoders: TextEncoders, tokenizers: Tokenizers, captions: Sequence[str], t5_length: int
) -> Condition:
    """T5 features and CLIP-L's pooled output."""
    device = encoders.t5.device
    ids = tokenize(tokenizers.clip, captions, CLIP_LENGTH).to(device)
    return Condition(
        encoders.t5(tokenize(tokenizers.t5, captions, t5_length).to(device)).last_hidden_state,
        encoders.clip.text_model(ids).pooler_output,
    )


@torch.no_grad()
def sd3_condition(encoders: TextEncoders, tokenizers: Tokenizers, captions: Sequence[str], t5_length: int) -> Condition:
    """Both CLIPs side by side, widened with zeros, then T5; both projections, side by side."""
    device = encoders.t5.device
    t5 = encoders.t5(tokenize(tokenizers.t5, captions, t5_length).to(device)).last_hidden_state
    outputs = [
        clip(tokenize(tokenizer, captions, CLIP_LENGTH).to(device), output_hidden_states=True)
        for clip, tokenizer in ((encoders.clip, tokenizers.clip), (encoders.clip_2, tokenizers.clip_2))
    ]
    clip = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
    return Condition(
        torch.cat([pad(clip, (0, t5.shape[-1] - clip.shape[-1])), t5], dim=1),
        torch.cat([output.text_embeds for output in outputs], dim=-1),
    )
