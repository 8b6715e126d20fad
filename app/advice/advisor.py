"""Advice on a job, without holding up the event loop."""

import asyncio

from app.advice.prompt_tokenizers import PromptTokenizers
from app.advice.rules import Case, advise, read_texts
from app.catalog.catalog import ModelCard
from app.jobs.schema import Advice, ImageJob

# Counted in less time than a thread takes to be asked.
_SHORT_CHARS = 300


class Advisor:
    def __init__(self, tokenizers: PromptTokenizers) -> None:
        self._tokenizers = tokenizers

    async def advise(self, job: ImageJob, card: ModelCard) -> tuple[Advice, ...]:
        """Give the warnings that the job's author should see."""
        chars = len(job.prompt) + len(job.negative_prompt or "")
        if chars <= _SHORT_CHARS and self._tokenizers.are_loaded(card):
            return self._advise(job, card)
        return await asyncio.to_thread(self._advise, job, card)

    def _advise(self, job: ImageJob, card: ModelCard) -> tuple[Advice, ...]:
        tokens = {name: self._tokenizers.count(card, text) for name, text in read_texts(job, card).items()}
        return advise(Case(job, card, tokens))
