"""What the clients ask for: few pictures, each again and again, so that every drawing is compared with others."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from tests.system.chaos.stack import NULL_MODEL, REAL_MODEL

_CANCELED = 0.1
_HASTY = 0.03
_PROMPTS = ("a small red ring", "a large blue star on the left", "two green squares")
_SEEDS = 12


@dataclass(frozen=True, slots=True)
class Order:
    """One request. tag: its very own. cancel_after_s: from its acceptance; None: it is wanted.
    patience_s: of its client for the reply to the first submission; None: enough for any reply."""

    tag: str
    model: str
    prompt: str
    seed: int
    steps: int
    n: int
    priority: str
    cancel_after_s: float | None
    patience_s: float | None

    def body(self) -> Mapping[str, object]:
        return {
            "model": self.model,
            "prompt": self.prompt,
            "seed": self.seed,
            "num_inference_steps": self.steps,
            "n": self.n,
            "priority": self.priority,
            "width": 64,
            "height": 64,
            "metadata": {"tag": self.tag},
        }


def null_order(tag: str, rng: random.Random) -> Order:
    """Some take longer than a checkpoint's interval, most do not."""
    return _order(tag, rng, NULL_MODEL, steps=rng.choice((4, 10, 20, 40, 100)), n=rng.choice((1, 1, 1, 2, 4)))


def real_order(tag: str, rng: random.Random) -> Order:
    """One image each: a real picture's last bit may depend on the company it was drawn in."""
    return _order(tag, rng, REAL_MODEL, steps=rng.choice((8, 20, 40)), n=1)


def _order(tag: str, rng: random.Random, model: str, *, steps: int, n: int) -> Order:
    return Order(
        tag=tag,
        model=model,
        prompt=rng.choice(_PROMPTS),
        seed=rng.randrange(_SEEDS),
        steps=steps,
        n=n,
        priority=rng.choice(("low", "normal", "normal", "high")),
        cancel_after_s=rng.uniform(0, 1.5) if rng.random() < _CANCELED else None,
        patience_s=rng.uniform(0.001, 0.03) if rng.random() < _HASTY else None,
    )
