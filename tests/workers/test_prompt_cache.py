"""What the cache keeps, by bytes, and that an engine asks it."""

from collections.abc import Mapping

import torch

from tests.workers.requests import make_request
from workers.engine.cost import CostModel, Stage
from workers.engine.engine import Engine
from workers.engine.pipeline import StepPipeline
from workers.engine.prompt_cache import PromptCache, PromptKey
from workers.engine.request import Conditioning
from workers.engine.scheduler import Scheduler


def conditioning(kib: int) -> Conditioning:
    return Conditioning(torch.zeros(1, kib, 256), torch.zeros(1, 0))


def key(prompt: str, **changes: object) -> PromptKey:
    return PromptKey(**({"model": "tiny-sd3", "prompt": prompt, "max_sequence_length": 32} | changes))  # type: ignore[arg-type]


def test_the_least_recently_used_goes_first() -> None:
    cache = PromptCache(max_bytes=3 * 1024)
    for prompt in "abc":
        cache.put(key(prompt), conditioning(1))
    assert cache.get(key("a")) is not None
    cache.put(key("d"), conditioning(1))
    assert [prompt for prompt in "abcd" if cache.get(key(prompt)) is not None] == ["a", "c", "d"]
    assert cache.size_bytes == 3 * 1024


def test_a_large_one_takes_the_place_of_several_and_one_too_large_of_none() -> None:
    cache = PromptCache(max_bytes=4 * 1024)
    for prompt in "abcd":
        cache.put(key(prompt), conditioning(1))
    cache.put(key("large"), conditioning(3))
    assert cache.size_bytes == 4 * 1024
    cache.put(key("too large"), conditioning(5))
    assert cache.get(key("too large")) is None
    assert cache.get(key("large")) is not None


def test_equal_prompts_for_other_models_or_lengths_are_other_prompts() -> None:
    cache = PromptCache(max_bytes=4 * 1024)
    cache.put(key("a"), conditioning(1))
    assert cache.get(key("a", model="tiny-flux-dev")) is None
    assert cache.get(key("a", max_sequence_length=64)) is None


def test_images_of_one_prompt_encode_it_once(pipelines: Mapping[str, StepPipeline]) -> None:
    engine = Engine(pipelines, Scheduler(CostModel(), max_rows=16), clock=lambda: 0.0)
    report = engine.admit([make_request(str(i), seed=i) for i in range(4)])
    assert [worked.stage for worked in report.worked] == [Stage.TEXT_ENCODE] * 2, "the prompt, and the empty one"
    assert report.prompt_hits == 6


def test_without_a_cache_every_prompt_is_encoded(pipelines: Mapping[str, StepPipeline]) -> None:
    engine = Engine(pipelines, Scheduler(CostModel(), max_rows=16), clock=lambda: 0.0, prompts=PromptCache(0))
    report = engine.admit([make_request(str(i), seed=i) for i in range(4)])
    assert len(report.worked) == 8
