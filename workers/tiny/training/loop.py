"""One training loop for every stage: seeded by step, resumable, with a progress bar and a loss curve.

What a step sees follows from the stage's name and the step's number alone, so a run that was cut off and resumed
sees what an uninterrupted one would have seen.
"""

import csv
import math
import os
import platform
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn
from tqdm import tqdm

from workers.tiny.training.files import in_one_move

WARMUP_STEPS = 100
SAVE_EVERY = 200


class RunError(Exception):
    """A run that cannot go on from what lies in its folder."""


@dataclass
class Draw:
    """The random numbers of one step: `rng` for scenes and words, `generator` for tensors, always on the CPU."""

    stage: str
    step: int
    rng: random.Random = field(init=False)
    generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        seed = crc32(f"{self.stage}/{self.step}".encode())
        self.rng = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Stage:
    """One thing to train: `loss` gives a step's loss.

    The rates of Muon, for matrices and convolutions, and of AdamW, for the rest, warm up, hold for a share of the
    steps, and then fall to zero as a cosine; and so again in each of the rounds, which share the steps equally.
    """

    name: str
    module: nn.Module
    loss: Callable[[Draw], Tensor]
    steps: int
    matrix_rate: float
    rate: float = 2e-3
    hold: float = 0.0
    rounds: int = 1

    def fallen(self, step: int) -> float:
        """How far the rates have fallen at a step: 0 while they hold, 1 at the end of a round."""
        length = self.steps / self.rounds
        return max(0.0, step % length - self.hold * length) / (length - self.hold * length)

    @property
    def settings(self) -> dict[str, float]:
        """What a run that goes on must have in common with its beginning."""
        return {
            "steps": self.steps,
            "matrix_rate": self.matrix_rate,
            "rate": self.rate,
            "hold": self.hold,
            "rounds": self.rounds,
        }


def train(stage: Stage, folder: Path, origin: str = "") -> None:
    """Train `stage.module` in place, going on from `folder/<name>.pt` where there is one.

    origin: tells the finished modules that it learns from; with others, its checkpoint is worth nothing.

    Writes the checkpoint every SAVE_EVERY steps and a line of `<name>.csv` with each: step, mean loss since the last
    line, seconds of training so far, hardware. Raises RunError for a checkpoint of other settings or origin.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, curve = folder / f"{stage.name}.pt", folder / f"{stage.name}.csv"
    optimizer = Optimizer(stage)
    done, seconds = 0, 0.0
    if checkpoint.exists():
        state = _load(checkpoint)
        if state["settings"] != stage.settings:
            begun = f"{checkpoint} was begun with {state['settings']}, not {stage.settings}"
            raise RunError(f"{begun}; remove it to start anew")
        if state["origin"] != origin:
            raise RunError(f"{checkpoint} learnt from other parts than the run has now; remove it to start anew")
        stage.module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        done, seconds = state["step"], state["seconds"]
    machine = hardware(next(stage.module.parameters()).device)
    losses: list[float] = []
    started = time.monotonic() - seconds
    bar = tqdm(range(done, stage.steps), desc=stage.name, initial=done, total=stage.steps, unit="step", mininterval=5)
    stage.module.train()
    for step in bar:
        stage.module.zero_grad()
        loss = stage.loss(Draw(stage.name, step))
        value = loss.item()
        if not math.isfinite(value):  # before it spoils the checkpoint
            raise RunError(f"the loss of {stage.name} is {value} at step {step + 1}; {checkpoint} is older")
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(stage.module.parameters(), 1.0)
        optimizer.step(_share(step, stage))
        losses.append(value)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == stage.steps:
            mean, seconds = math.fsum(losses) / len(losses), time.monotonic() - started
            bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
            losses.clear()
            _save(
                checkpoint,
                {
                    "module": stage.module.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "settings": stage.settings,
                    "origin": origin,
                    "step": step + 1,
                    "seconds": seconds,
                },
            )
            _note(curve, [str(step + 1), f"{mean:.5f}", f"{seconds:.0f}", machine])
    stage.module.eval()
    stage.module.requires_grad_(False)


def hardware(device: torch.device) -> str:
    """What a stage trains on, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} of {os.cpu_count()} CPU cores ({platform.machine()})"


class Optimizer:
    """Muon (Jordan et al., kellerjordan.github.io/posts/muon) for matrices and convolutions, AdamW for the rest.

    A few hundred steps of Muon bring these small models as far as thousands of AdamW's. A convolution is a matrix of
    its output channels; embedding tables are none.
    """

    def __init__(self, stage: Stage) -> None:
        tables = {id(layer.weight) for layer in stage.module.modules() if isinstance(layer, nn.Embedding)}
        parameters = [parameter for parameter in stage.module.parameters() if parameter.requires_grad]
        self._matrices = [p for p in parameters if p.ndim >= 2 and id(p) not in tables]
        others = [p for p in parameters if p.ndim < 2 or id(p) in tables]
        self._views = []
        for matrix in self._matrices:
            view = nn.Parameter(matrix.data.reshape(len(matrix), -1))
            matrix.data = view.data.view(matrix.shape)  # one storage: a step of the view is a step of the parameter
            self._views.append(view)
        self._rates = (stage.matrix_rate, stage.rate)
        self._parts = (
            torch.optim.Muon(self._views, lr=stage.matrix_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=stage.rate, betas=(0.9, 0.99), weight_decay=0.0),
        )

    def step(self, share: float) -> None:
        """Take one step at this share of the full rates."""
        for matrix, view in zip(self._matrices, self._views, strict=True):
            view.grad = None if matrix.grad is None else matrix.grad.reshape(view.shape)
        for part, rate in zip(self._parts, self._rates, strict=True):
            for group in part.param_groups:
                group["lr"] = rate * share
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for part, state in zip(self._parts, states, strict=True):
            part.load_state_dict(state)


def _share(step: int, stage: Stage) -> float:
    """The share of the full rates at a step."""
    warm = min(1.0, (step % (stage.steps / stage.rounds) + 1) / WARMUP_STEPS)
    return warm * 0.5 * (1 + math.cos(math.pi * stage.fallen(step)))


def _load(path: Path) -> dict[str, Any]:
    """Raises RunError for what is no checkpoint."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        lacking = {"module", "optimizer", "settings", "origin", "step", "seconds"} - set(state)
    except Exception as error:  # torch raises whatever the damage makes it meet
        raise RunError(f"{path} is no checkpoint; remove it to start anew") from error
    if lacking:
        raise RunError(f"{path} lacks {', '.join(sorted(lacking))}; remove it to start anew")
    return state


def _save(path: Path, state: dict[str, object]) -> None:
    """Replace the checkpoint in one move: a run that is killed here keeps the older one."""
    with in_one_move(path) as partial:
        torch.save(state, partial)


def _note(path: Path, line: list[str]) -> None:
    """Append to the curve, in one move; lines of steps that a resumed run does again are dropped."""
    rows = []
    if path.exists():
        with path.open(newline="") as file:
            rows = [row for row in csv.reader(file) if row[0] != "step" and int(row[0]) < int(line[0])]
    with in_one_move(path) as partial, partial.open("w", newline="") as file:
        csv.writer(file).writerows([["step", "loss", "seconds", "hardware"], *rows, line])
