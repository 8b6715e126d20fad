"""Each rule at its boundary: the last value without a warning, and the first with one."""

import re
from typing import Any

import pytest

from app.advice.code import Code
from app.advice.rules import RULES, Case, advise, read_texts
from app.advice.tokens import PromptTokens, TokenCount
from app.catalog.catalog import Catalog
from app.jobs.schema import Advice, ImageJob
from tests.conftest import make_job

CATALOG = Catalog.load()


def suited(model: str, **changes: object) -> ImageJob:
    """A job with the model's defaults, and these changes."""
    return make_job(**{**CATALOG[model].defaults.model_dump(), "model": model, **changes})


def warnings(job: ImageJob, clip: int = 20, t5: int = 20, exact: bool = True) -> dict[str, Advice]:
    """By code, for texts of so many tokens."""
    tokens = PromptTokens(TokenCount(clip, exact), TokenCount(t5, exact))
    card = CATALOG[job.model]
    given = advise(Case(job, card, dict.fromkeys(read_texts(job, card), tokens)))
    assert all(Code(advice.code) for advice in given)
    return {advice.code: advice for advice in given}


@pytest.mark.parametrize("model", CATALOG)
def test_a_models_defaults_are_beyond_reproach(model: str) -> None:
    assert warnings(suited(model)) == {}


@pytest.mark.parametrize(
    ("model", "without", "with_", "code"),
    [
        ("tiny-sd3", {"num_inference_steps": 16}, {"num_inference_steps": 15}, Code.STEPS_TOO_FEW),
        ("tiny-sd3", {"num_inference_steps": 28}, {"num_inference_steps": 29}, Code.STEPS_TOO_MANY),
        ("tiny-flux-schnell", {"num_inference_steps": 1}, {}, Code.STEPS_TOO_FEW),
        ("tiny-flux-schnell", {"num_inference_steps": 4}, {"num_inference_steps": 5}, Code.STEPS_TOO_MANY),
        ("sd3.5-large-turbo", {"num_inference_steps": 4}, {"num_inference_steps": 3}, Code.STEPS_TOO_FEW),
        ("tiny-flux-schnell", {"guidance_scale": 0.0}, {"guidance_scale": 0.5}, Code.GUIDANCE_IGNORED),
        ("tiny-flux-schnell", {"guidance_scale": 1.0}, {"guidance_scale": 3.5}, Code.GUIDANCE_IGNORED),
        ("tiny-sd3", {"guidance_scale": 2.0}, {"guidance_scale": 1.9}, Code.GUIDANCE_TOO_LOW),
        ("tiny-sd3", {"guidance_scale": 7.0}, {"guidance_scale": 7.1}, Code.GUIDANCE_TOO_HIGH),
        ("tiny-flux-dev", {"guidance_scale": 1.5}, {"guidance_scale": 1.0}, Code.GUIDANCE_TOO_LOW),
        ("tiny-flux-dev", {"guidance_scale": 5.0}, {"guidance_scale": 5.5}, Code.GUIDANCE_TOO_HIGH),
        ("sd3.5-large-turbo", {"guidance_scale": 0.0}, {"guidance_scale": 1.5}, Code.GUIDANCE_TOO_HIGH),
        ("flux-dev", {"width": 512, "height": 512}, {"width": 512, "height": 496}, Code.SIZE_TOO_SMALL),
        ("tiny-sd3", {"width": 256, "height": 256}, {"width": 256, "height": 272}, Code.SIZE_TOO_LARGE),
        ("flux-dev", {"width": 1536, "height": 640}, {"width": 1552, "height": 640}, Code.SIZE_TOO_NARROW),
        ("flux-dev", {"width": 640, "height": 1536}, {"width": 640, "height": 1552}, Code.SIZE_TOO_NARROW),
        ("tiny-sd3", {"negative_prompt": "blur"}, {"negative_prompt": "blur", "guidance_scale": 1.0},
         Code.NEGATIVE_PROMPT_IGNORED),
        ("tiny-sd3", {"negative_prompt": " ", "guidance_scale": 1.0}, {}, Code.NEGATIVE_PROMPT_IGNORED),
        ("tiny-flux-dev", {"negative_prompt": "blur", "true_cfg_scale": 1.5}, {"negative_prompt": "blur"},
         Code.NEGATIVE_PROMPT_IGNORED),
        ("tiny-sd3", {"seed": 1}, {"seed": 0}, Code.SEED_ZERO),
    ],
)  # fmt: skip
def test_a_rule_speaks_from_its_boundary_on(
    model: str, without: dict[str, Any], with_: dict[str, Any], code: Code
) -> None:
    assert code not in warnings(suited(model, **without))
    assert not with_ or code in warnings(suited(model, **with_))


@pytest.mark.parametrize(("clip", "warned"), [(77, False), (78, True)])
def test_clip_reads_77_tokens(clip: int, warned: bool) -> None:
    assert (Code.PROMPT_BEYOND_CLIP in warnings(suited("tiny-sd3"), clip=clip)) is warned


@pytest.mark.parametrize(("t5", "warned"), [(128, False), (129, True)])
def test_t5_reads_max_sequence_length_tokens(t5: int, warned: bool) -> None:
    assert (Code.PROMPT_TRUNCATED in warnings(suited("tiny-sd3"), t5=t5)) is warned


@pytest.mark.parametrize(
    ("job", "tokens", "code", "words"),
    [
        (suited("tiny-sd3"), {"clip": 96, "t5": 100}, Code.PROMPT_BEYOND_CLIP,
         "prompt has 96 tokens for CLIP, which reads the first 77; T5 reads all 100 of its own. Put what"
         " matters most first, or shorten it by 19 tokens."),
        (suited("tiny-sd3"), {"clip": 96, "t5": 130}, Code.PROMPT_BEYOND_CLIP, "T5 reads the first 128 of its 130."),
        (suited("flux-dev"), {"clip": 96, "t5": 80, "exact": False}, Code.PROMPT_BEYOND_CLIP,
         "prompt has at least 96 tokens for CLIP, which reads the first 77; T5 reads up to 512. Put what matters most"
         " first, or shorten it by at least 19 tokens."),
        (suited("tiny-sd3"), {"t5": 130}, Code.PROMPT_TRUNCATED,
         "T5 reads the first 128 of the 130 tokens of prompt; 2 at its end are dropped. Try max_sequence_length 256."),
        (suited("flux-dev", max_sequence_length=128), {"t5": 300}, Code.PROMPT_TRUNCATED, "max_sequence_length 384."),
        (suited("tiny-sd3"), {"t5": 300}, Code.PROMPT_TRUNCATED,
         "Try max_sequence_length 256, and shorten it by 44 tokens: 256 is the most that tiny-sd3 reads."),
        (suited("tiny-sd3", max_sequence_length=256), {"t5": 300, "exact": False}, Code.PROMPT_TRUNCATED,
         "at least 44 at its end are dropped. Shorten it by at least 44 tokens: 256 is the most that tiny-sd3 reads."),
        (suited("flux-dev", width=256, height=512), {}, Code.SIZE_TOO_SMALL, "Try 368x736."),
        (suited("sd3-medium", width=1536, height=1024), {}, Code.SIZE_TOO_LARGE, "Try 1408x928."),
        (suited("flux-dev", width=2048, height=512), {}, Code.SIZE_TOO_NARROW, "4.0 times as wide as high: few"),
        (suited("flux-dev", width=2048, height=512), {}, Code.SIZE_TOO_NARROW, "Try 1440x720."),
        (suited("sd3.5-large-turbo", negative_prompt="blur"), {}, Code.NEGATIVE_PROMPT_IGNORED, "Leave it out"),
    ],
)  # fmt: skip
def test_a_warning_counts_and_names_what_to_try(job: ImageJob, tokens: dict[str, Any], code: Code, words: str) -> None:
    assert words in warnings(job, **tokens)[code].message


def test_a_negative_prompt_is_measured_where_it_is_read() -> None:
    guided = suited("tiny-sd3", negative_prompt="blur")
    params = {advice.param for advice in advise(_case(guided, clip=78)) if advice.code == Code.PROMPT_BEYOND_CLIP}
    assert params == {"prompt", "negative_prompt"}
    unguided = suited("tiny-flux-dev", negative_prompt="blur")
    assert warnings(unguided, clip=78)[Code.PROMPT_BEYOND_CLIP].param == "prompt"


def test_the_sizes_to_try_are_sizes_that_the_model_takes_and_is_not_warned_of() -> None:
    tried = 0
    for model, card in CATALOG.items():
        step, limits = card.limits.size_multiple, card.limits
        for width in range(limits.min_side, limits.max_side + 1, step * 4):
            for height in range(limits.min_side, limits.max_side + 1, step * 4):
                if card.size_problems(width, height):
                    continue
                for advice in warnings(suited(model, width=width, height=height)).values():
                    found = re.search(r"Try (\d+)x(\d+)", advice.message)
                    assert found is not None
                    tried += 1
                    size = int(found[1]), int(found[2])
                    assert not card.size_problems(*size), (model, width, height, size)
                    after = warnings(suited(model, width=size[0], height=size[1]))
                    assert advice.code not in after, (model, width, height, size)
    assert tried > 1000


def test_every_rule_speaks_somewhere_here_and_has_a_line_in_the_table() -> None:
    assert {rule.code for rule in RULES} == set(Code)
    assert all(rule.when.endswith(".") for rule in RULES)


def _case(job: ImageJob, clip: int) -> Case:
    card = CATALOG[job.model]
    tokens = PromptTokens(TokenCount(clip, True), TokenCount(20, True))
    return Case(job, card, dict.fromkeys(read_texts(job, card), tokens))
