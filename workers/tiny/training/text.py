"""Stage 2, the text encoders: T5 and both CLIPs learn to read, before any picture is drawn.

The published encoders come pretrained on text; these learn to state the facts of a caption. Linear heads, thrown away
afterwards, read the facts off what the pipelines use: of CLIP the pooled output, its projection and the last layer but
one from the end token on (before it a causal encoder has not read everything), of T5 any position. So each position
of the T5 features tells the whole prompt, and a transformer learns from it in minutes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from workers.tiny.captions import describe
from workers.tiny.facts import NOTHING, RELATIONS, Facts
from workers.tiny.scenes import COLOURS, COLUMNS, FILLS, ROWS, SHAPES, SIZES
from workers.tiny.tokenizers import CLIP_LENGTH, clip_tokenizer, t5_tokenizer
from workers.tiny.training.loop import Draw, Stage

CAPTIONS_PER_STEP = 64
EMPTY_SHARE = 0.03  # of captions, so that "" is read as nothing stated
# Tokens of CLIP and T5; one pair is drawn a step. What a causal CLIP makes of a token does not change with the padding
# behind it, so short captions are cheap to learn from.
LENGTHS = ((36, 32), (36, 32), (48, 48), (CLIP_LENGTH, 128))
POSITIONS = 4  # of T5, drawn a step
FIGURE_CLASSES = (len(SHAPES), len(COLOURS), len(SIZES), len(ROWS), len(COLUMNS))
# For each fact the number of its values and one for "not stated".
CLASSES = [n + 1 for n in (*FIGURE_CLASSES, *FIGURE_CLASSES, len(RELATIONS), len(FILLS), len(COLOURS), len(COLOURS))]


def classes_of(facts: Facts) -> list[int]:
    """The facts as class numbers, in the order of CLASSES; 0 is "not stated"."""
    colours = sorted(COLOURS)
    numbers = []
    for figure in [*facts.figures, None, None][:2]:
        if figure is None:
            numbers += [0] * len(FIGURE_CLASSES)
            continue
        numbers += [
            _number(SHAPES, figure.shape),
            _number(colours, figure.colour),
            _number(tuple(SIZES), figure.size),
            _number(range(len(ROWS)), figure.row),
            _number(range(len(COLUMNS)), figure.column),
        ]
    background = facts.background
    return [
        *numbers,
        _number(RELATIONS, facts.relation),
        _number(FILLS, background and background.fill),
        _number(colours, background and background.colour),
        _number(colours, background and background.second),
    ]


def _number(values: Sequence[object], value: object) -> int:
    return 0 if value is None else values.index(value) + 1


@dataclass(frozen=True)
class Tokenizers:
    """As in the published SD3: `clip_2` is `clip`, but pads with "!"."""

    clip: CLIPTokenizer
    clip_2: CLIPTokenizer
    t5: T5Tokenizer

    @classmethod
    def learn(cls, captions: Sequence[str]) -> Self:
        return cls(clip_tokenizer(captions), clip_tokenizer(captions, pad_token="!"), t5_tokenizer(captions))  # noqa: S106


class TextEncoders(nn.Module):
    """The three encoders, trained side by side; `clip` and `clip_2` are CLIP-L and CLIP-G."""

    def __init__(
        self, clip: CLIPTextModelWithProjection, clip_2: CLIPTextModelWithProjection, t5: T5EncoderModel
    ) -> None:
        super().__init__()
        self.clip, self.clip_2, self.t5 = clip, clip_2, t5


class Reader(nn.Module):
    """The encoders with the heads that read facts from them."""

    def __init__(self, encoders: TextEncoders) -> None:
        super().__init__()
        self.encoders = encoders
        self.heads = nn.ModuleList()
        for clip in (encoders.clip, encoders.clip_2):
            width = clip.config.hidden_size
            self.heads += [_head(width), _head(width), _head(width)]
        self.heads.append(_head(encoders.t5.config.d_model))

    def forward(self, clip_ids: Tensor, clip_2_ids: Tensor, t5_ids: Tensor, positions: Tensor) -> list[Tensor]:
        """Logits `(B, P, sum(CLASSES))`, one tensor a head; T5 is read at `positions`, a (P,) of indices."""
        logits = []
        heads = iter(self.heads)
        for clip, ids in ((self.encoders.clip, clip_ids), (self.encoders.clip_2, clip_2_ids)):
            output = clip(ids, output_hidden_states=True)
            row = torch.arange(len(ids), device=ids.device)
            end = torch.eq(ids, clip.config.eos_token_id).int().argmax(1)  # type: ignore[arg-type]  # an int here
            between = (end + ids.shape[1] - 1) // 2  # a padding position, or the end itself
            pooled = output.last_hidden_state[row, end]
            features = output.hidden_states[-2][row[:, None], torch.stack([end, between], 1)]
            logits += [next(heads)(x) for x in (pooled[:, None], output.text_embeds[:, None], features)]
        logits.append(next(heads)(self.encoders.t5(t5_ids).last_hidden_state[:, positions]))
        return logits


def _head(width: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(width, elementwise_affine=False), nn.Linear(width, sum(CLASSES)))


def text_stage(reader: Reader, tokenizers: Tokenizers, device: torch.device, steps: int) -> Stage:
    def loss(draw: Draw) -> Tensor:
        clip_length, t5_length = draw.rng.choice(LENGTHS)
        captions: list[str] = []
        numbers: list[list[int]] = []
        while len(captions) < CAPTIONS_PER_STEP:
            caption, facts = ("", NOTHING) if draw.rng.random() < EMPTY_SHARE else describe(draw.rng)
            if t5_length == LENGTHS[-1][1] or len(caption.split()) * 1.3 < t5_length:
                captions.append(caption)
                numbers.append(classes_of(facts))
        ids = [
            tokenize(tokenizers.clip, captions, clip_length).to(device),
            tokenize(tokenizers.clip_2, captions, clip_length).to(device),
            tokenize(tokenizers.t5, captions, t5_length).to(device),
        ]
        positions = torch.randint(0, t5_length, (POSITIONS,), generator=draw.generator).to(device)
        targets = torch.tensor(numbers, device=device)
        return torch.stack([_facts_loss(logits, targets) for logits in reader(*ids, positions)]).mean()

    return Stage("text", reader, loss, steps, matrix_rate=3e-3)


def tokenize(tokenizer: CLIPTokenizer | T5Tokenizer, captions: Sequence[str], length: int) -> Tensor:
    """Token ids `(B, length)`, padded and cut as the pipelines do."""
    ids: Tensor = tokenizer(
        list(captions), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    return ids


def _facts_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy over facts and positions; logits (B, P, sum(CLASSES)), targets (B, len(CLASSES))."""
    losses = [
        cross_entropy(part.flatten(0, 1), target.repeat_interleave(logits.shape[1]))
        for part, target in zip(torch.split(logits, CLASSES, dim=-1), targets.T, strict=True)
    ]
    return torch.stack(losses).mean()
