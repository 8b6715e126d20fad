"""When to warn, and what to say. One function a rule, each of a whole case; `RULES` is the table of them all."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from app.advice.code import Code
from app.advice.tokens import CLIP_TOKENS, PromptTokens
from app.catalog.catalog import Family, Guidance, ModelCard
from app.jobs.schema import Advice, ImageJob

# Rows of one batch share their text length: few different lengths are kinder to everyone than the exact one.
_LENGTH_STEP = 128
# 21:9 is the widest that Flux's makers offer (docs.bfl.ai), and what it comes to in multiples of 16.
_WIDEST = 2.4


@dataclass(frozen=True, slots=True)
class Case:
    """A job, its model, and the tokens of those of its texts that are read: `prompt`, and where there is
    classifier-free guidance with one, `negative_prompt`."""

    job: ImageJob
    card: ModelCard
    tokens: Mapping[str, PromptTokens]


@dataclass(frozen=True, slots=True)
class Rule:
    """`check` gives the warning's words where there is something to say. `when` is its line in the documentation."""

    code: Code
    param: str
    when: str
    check: Callable[[Case], str | None]


def advise(case: Case) -> tuple[Advice, ...]:
    """Give all warnings, in the order of the table."""
    return tuple(
        Advice(code=rule.code, message=message, param=rule.param)
        for rule in RULES
        if (message := rule.check(case)) is not None
    )


def read_texts(job: ImageJob, card: ModelCard) -> Mapping[str, str]:
    """Give the texts that reach a text encoder and say something."""
    texts = {"prompt": job.prompt}
    if job.negative_prompt and job.negative_prompt.strip() and _has_cfg(job, card):
        texts["negative_prompt"] = job.negative_prompt
    return texts


def _has_cfg(job: ImageJob, card: ModelCard) -> bool:
    return (job.true_cfg_scale if card.family is Family.FLUX else job.guidance_scale) > 1


def _beyond_clip(text: str, case: Case) -> str | None:
    tokens = case.tokens.get(text)
    if tokens is None or tokens.clip.tokens <= CLIP_TOKENS:
        return None
    clip, t5, most = tokens.clip, tokens.t5, case.job.max_sequence_length
    if t5.tokens > most:
        read = f"the first {most} of its {t5}"
    else:
        read = f"all {t5} of its own" if t5.exact else f"up to {most}"
    return (
        f"{text} has {clip} tokens for CLIP, which reads the first {CLIP_TOKENS}; T5 reads {read}."
        f" Put what matters most first, or shorten it by {clip.beyond(CLIP_TOKENS)} tokens."
    )


def _truncated(text: str, case: Case) -> str | None:
    tokens, most, limit = case.tokens.get(text), case.job.max_sequence_length, case.card.limits.max_sequence_length
    if tokens is None or tokens.t5.tokens <= most:
        return None
    t5 = tokens.t5
    said = f"T5 reads the first {most} of the {t5} tokens of {text}; {t5.beyond(most)} at its end are dropped."
    if t5.tokens > limit:
        shorter = f"shorten it by {t5.beyond(limit)} tokens: {limit} is the most that {case.card.name} reads"
        return f"{said} {f'Try max_sequence_length {limit}, and {shorter}' if limit > most else shorter.capitalize()}."
    return f"{said} Try max_sequence_length {min(limit, math.ceil(t5.tokens / _LENGTH_STEP) * _LENGTH_STEP)}."


def _negative_prompt_ignored(case: Case) -> str | None:
    job, card = case.job, case.card
    if not (job.negative_prompt and job.negative_prompt.strip()) or _has_cfg(job, card):
        return None
    if card.family is Family.FLUX:
        return (
            "negative_prompt has no effect without classifier-free guidance. Try true_cfg_scale 2 with it, which"
            " doubles the work of each step, or say in the prompt what to show instead."
        )
    if card.recommended.guidance_scale.max <= 1:
        return (
            f"negative_prompt has no effect with guidance_scale {job.guidance_scale:g}, at which {card.name} is best."
            " Leave it out, and say in the prompt what to show instead."
        )
    return (
        f"negative_prompt has no effect with guidance_scale {job.guidance_scale:g}: that needs more than 1."
        f" Try guidance_scale {card.defaults.guidance_scale:g}."
    )


def _steps_too_few(case: Case) -> str | None:
    steps, suited = case.job.num_inference_steps, case.card.recommended.num_inference_steps
    if steps >= suited.min:
        return None
    return (
        f"{_count(steps, 'step')} may be too few for {case.card.name}: the picture is likely blurry or unfinished."
        f" Try num_inference_steps {case.card.defaults.num_inference_steps}."
    )


def _steps_too_many(case: Case) -> str | None:
    steps, suited = case.job.num_inference_steps, case.card.recommended.num_inference_steps
    if steps <= suited.max:
        return None
    return (
        f"{_count(steps, 'step')} are more than {case.card.name} is known to gain from: they take longer, and beyond"
        f" {suited.max:g} the picture is hardly better. Try num_inference_steps"
        f" {case.card.defaults.num_inference_steps}."
    )


def _guidance_ignored(case: Case) -> str | None:
    # 0 and 1 are both said for "no guidance", which is what this model does.
    if case.card.guidance is not Guidance.NONE or case.job.guidance_scale in (0, 1):
        return None
    return (
        f"guidance_scale {case.job.guidance_scale:g} has no effect: {case.card.name} was distilled to work without."
        " Leave it out, or try 0."
    )


def _guidance_too_low(case: Case) -> str | None:
    scale, suited = case.job.guidance_scale, case.card.recommended.guidance_scale
    if case.card.guidance is Guidance.NONE or scale >= suited.min:
        return None
    return (
        f"guidance_scale {scale:g} is low for {case.card.name}: the picture may barely follow the prompt."
        f" Try {case.card.defaults.guidance_scale:g}."
    )


def _guidance_too_high(case: Case) -> str | None:
    scale, suited = case.job.guidance_scale, case.card.recommended.guidance_scale
    if case.card.guidance is Guidance.NONE or scale <= suited.max:
        return None
    return (
        f"guidance_scale {scale:g} is high for {case.card.name}: the picture may look oversaturated or burnt."
        f" Try {case.card.defaults.guidance_scale:g}."
    )


def _size_too_small(case: Case) -> str | None:
    job, least = case.job, case.card.recommended.pixels.min
    if job.width * job.height >= least:
        return None
    return (
        f"{job.width}x{job.height} is smaller than what {case.card.name} is good at: the picture may be coarse or show"
        f" only a part. Try {_size(case, least, math.ceil)}."
    )


def _size_too_large(case: Case) -> str | None:
    job, most = case.job, case.card.recommended.pixels.max
    if job.width * job.height <= most:
        return None
    return (
        f"{job.width}x{job.height} is larger than what {case.card.name} is good at: things may come twice or fall"
        f" apart. Try {_size(case, most, math.floor)}."
    )


def _size_too_narrow(case: Case) -> str | None:
    job = case.job
    long, short = max(job.width, job.height), min(job.width, job.height)
    if long <= _WIDEST * short:
        return None
    shape = "wide as high" if long == job.width else "high as wide"
    return (
        f"{job.width}x{job.height} is {long / short:.1f} times as {shape}:"
        f" few pictures that {case.card.name} learnt from are, and things may be repeated or stretched."
        f" Try {_size(case, job.width * job.height, math.floor, widest=2)}."
    )


def _seed_zero(case: Case) -> str | None:
    # Whoever gives a seed knows that it repeats, and is not told so every time. Zero alone surprises: Stability AI's
    # own API takes it for "a random one" (platform.stability.ai/docs/api-reference), and forms send it when left empty.
    if case.job.seed != 0:
        return None
    return (
        "seed 0 is a seed like any other, not a random one: the same request draws the same picture. Leave seed out for"
        " a new picture every time, or try another number."
    )


def _size(case: Case, pixels: float, snap: Callable[[float], int], widest: float = _WIDEST) -> str:
    """Find a size of about so many pixels and a shape like the job's that the model takes; its default otherwise."""
    job, card = case.job, case.card
    ratio = min(max(job.width / job.height, 1 / widest), widest)
    step = card.limits.size_multiple
    width, height = (snap(side / step) * step for side in (math.sqrt(pixels * ratio), math.sqrt(pixels / ratio)))
    if card.size_problems(width, height):
        width, height = card.defaults.width, card.defaults.height
    return f"{width}x{height}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


_BEYOND_CLIP = "The text is longer than the 77 tokens that CLIP reads; only T5 reads the rest."
_TRUNCATED = "The text is longer than `max_sequence_length`, in T5's tokens; its end is dropped."

RULES: Sequence[Rule] = (
    Rule(Code.PROMPT_BEYOND_CLIP, "prompt", _BEYOND_CLIP, partial(_beyond_clip, "prompt")),
    Rule(Code.PROMPT_BEYOND_CLIP, "negative_prompt", _BEYOND_CLIP, partial(_beyond_clip, "negative_prompt")),
    Rule(Code.PROMPT_TRUNCATED, "prompt", _TRUNCATED, partial(_truncated, "prompt")),
    Rule(Code.PROMPT_TRUNCATED, "negative_prompt", _TRUNCATED, partial(_truncated, "negative_prompt")),
    Rule(
        Code.NEGATIVE_PROMPT_IGNORED,
        "negative_prompt",
        "There is no classifier-free guidance: Flux without `true_cfg_scale`, SD3 with `guidance_scale` 1 or less.",
        _negative_prompt_ignored,
    ),
    Rule(Code.STEPS_TOO_FEW, "num_inference_steps", "Fewer steps than the model is good with.", _steps_too_few),
    Rule(Code.STEPS_TOO_MANY, "num_inference_steps", "More steps than the model gains from.", _steps_too_many),
    Rule(Code.GUIDANCE_IGNORED, "guidance_scale", "The model was distilled to work without.", _guidance_ignored),
    Rule(Code.GUIDANCE_TOO_LOW, "guidance_scale", "So low that the prompt is barely followed.", _guidance_too_low),
    Rule(Code.GUIDANCE_TOO_HIGH, "guidance_scale", "So high that pictures look oversaturated.", _guidance_too_high),
    Rule(Code.SIZE_TOO_SMALL, "size", "Fewer pixels than the model is good at.", _size_too_small),
    Rule(Code.SIZE_TOO_LARGE, "size", "More pixels than the model is good at.", _size_too_large),
    Rule(Code.SIZE_TOO_NARROW, "size", "One side is more than 2.4 times as long as the other.", _size_too_narrow),
    Rule(Code.SEED_ZERO, "seed", "Seed 0 draws the same each time; elsewhere it means a random one.", _seed_zero),
)
