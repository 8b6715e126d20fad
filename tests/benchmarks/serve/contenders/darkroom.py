"""Darkroom as its users run it: Valkey, gateway and one worker, asked over HTTP."""

import asyncio
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from app.cli.stack import Stack, StackOptions
from tests.benchmarks.serve.contenders.contender import DrawError, Picture

# A client that looks again after a tenth of the time it has waited: never much too late, never in the way.
_FIRST_LOOK_S = 0.02
_LOOK_SHARE = 0.1


class Darkroom:
    name = "darkroom"

    def __init__(self, model: str) -> None:
        self._model = model

    @contextmanager
    def running(self, folder: Path) -> Iterator[str]:
        os.environ["DARKROOM_TORCH_THREADS"] = "1"
        options = StackOptions(data_dir=folder / "data", models=(self._model,), port=0, ready_within_s=120)
        with Stack(options, say=print) as stack:
            yield stack.url

    async def draw(self, client: httpx.AsyncClient, body: Mapping[str, object]) -> Picture:
        started_s = time.monotonic()
        answer = await client.post("/v1/images", json=body)
        if answer.status_code != httpx.codes.ACCEPTED:
            raise DrawError(f"{answer.status_code}: {answer.text[:200]}")
        job = f"/v1/images/{answer.json()['id']}"
        while answer.status_code == httpx.codes.ACCEPTED:
            await asyncio.sleep(max(_FIRST_LOOK_S, _LOOK_SHARE * (time.monotonic() - started_s)))
            answer = await client.get(f"{job}/content")
        if answer.status_code != httpx.codes.OK:
            raise DrawError(f"{answer.status_code}: {answer.text[:200]}")
        received_s = time.monotonic()
        parameters = (await client.get(job)).json()["parameters"]
        return Picture(answer.content, received_s, parameters["largest_batch"])
