"""What warnings are about."""

from enum import StrEnum


class Code(StrEnum):
    """What a warning is about. Clients switch on these; they never change."""

    PROMPT_BEYOND_CLIP = "prompt_beyond_clip"
    PROMPT_TRUNCATED = "prompt_truncated"
    NEGATIVE_PROMPT_IGNORED = "negative_prompt_ignored"
    STEPS_TOO_FEW = "steps_too_few"
    STEPS_TOO_MANY = "steps_too_many"
    GUIDANCE_IGNORED = "guidance_ignored"
    GUIDANCE_TOO_LOW = "guidance_too_low"
    GUIDANCE_TOO_HIGH = "guidance_too_high"
    SIZE_TOO_SMALL = "size_too_small"
    SIZE_TOO_LARGE = "size_too_large"
    SIZE_TOO_NARROW = "size_too_narrow"
    SEED_ZERO = "seed_zero"
