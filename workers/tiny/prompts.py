"""The prompts of the evaluation, in combinations that no training picture showed."""

import random
from dataclasses import dataclass

from workers.tiny.captions import write_caption
from workers.tiny.facts import Facts, facts_of
from workers.tiny.scenes import Scene, draw_scene

LONG_SHARE = 0.15  # of prompts with many words about other things, half of them longer than CLIP reads


@dataclass(frozen=True, slots=True)
class Prompt:
    text: str
    facts: Facts
    scene: Scene  # one that shows it


def held_out_prompts(count: int, figures: int, seed: int = 0, placed: bool = True) -> list[Prompt]:
    """Prompts with one or two figures, each figure held out of training; the same arguments give the same prompts.

    placed: whether they state where the figures are, as they state everything else; of two at least the relation.
    """
    rng = random.Random(f"held out {figures} {seed}")
    prompts = []
    for _ in range(count):
        scene = draw_scene(rng, figures=figures, held_out=True)
        facts = facts_of(scene, places=placed)
        prompts.append(Prompt(write_caption(facts, rng, long_share=LONG_SHARE), facts, scene))
    return prompts
