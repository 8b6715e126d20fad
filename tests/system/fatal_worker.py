"""`python -m tests.system.fatal_worker STEP_MS FOLDER`: a null worker that some prompts kill, and others hang."""

import os
import signal
import time

import torch
from torch import Tensor

from tests.system.chaos.null_pipeline import ShowingPipeline
from tests.system.chaos.null_worker import run
from workers.engine.batch import DenoiseBatch
from workers.engine.request import Conditioning

KILLS = "a prompt that kills"
HANGS = "a prompt that hangs"
COMPANY = 8
"""Rows that such a prompt waits for before it strikes; it strikes alone as well."""

_MARKS = {KILLS: 1000.0, HANGS: 2000.0}


class FatalPipeline(ShowingPipeline):
    def encode(self, prompt: str, max_sequence_length: int) -> Conditioning:
        if prompt in _MARKS:
            return Conditioning(torch.zeros(1, 8, 16), torch.full((1, 16), _MARKS[prompt]))
        return super().encode(prompt, max_sequence_length)

    def denoise(self, batch: DenoiseBatch) -> Tensor:
        marks = batch.pooled_prompt_embeds[:, 0].tolist()
        if len(marks) in (1, COMPANY):
            if _MARKS[KILLS] in marks:
                os.kill(os.getpid(), signal.SIGKILL)
            while _MARKS[HANGS] in marks:
                time.sleep(1)
        return super().denoise(batch)


if __name__ == "__main__":
    run(FatalPipeline)
