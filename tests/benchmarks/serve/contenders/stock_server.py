"""The stock pipelines behind one HTTP route, one request at a time or in batches of equal requests.

    python -m tests.benchmarks.serve.contenders.stock_server --port 8000 --model tiny-sd3 --most 1 --window-s 0

Static batching as servers do it around a pipeline: the oldest request waits for the window, or until its batch is
full, for requests with equal settings; they are drawn together, from the first step to the last, and nobody joins.
"""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import uvicorn
from fastapi import FastAPI, Response

from tests.benchmarks.serve.contenders.contender import BATCH_HEADER, DRAW_PATH
from tests.benchmarks.serve.stock import DrawRequest, StockModels, png


@dataclass(slots=True, eq=False)
class _Waiting:
    request: DrawRequest
    arrived_s: float
    answer: asyncio.Future[tuple[bytes, int]] = field(default_factory=asyncio.Future)


class Batcher:
    """One batch at a time, on one thread; the event loop goes on meanwhile."""

    def __init__(self, models: StockModels, most: int, window_s: float) -> None:
        self._models = models
        self._most = most
        self._window_s = window_s
        self._waiting: list[_Waiting] = []
        self._arrival = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1)

    async def draw(self, request: DrawRequest) -> tuple[bytes, int]:
        """The picture's PNG, and how many were drawn with it."""
        waiting = _Waiting(request, time.monotonic())
        self._waiting.append(waiting)
        self._arrival.set()
        return await waiting.answer

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._collect()
            images = await loop.run_in_executor(self._thread, self._models.draw, [one.request for one in batch])
            for one, image in zip(batch, images, strict=True):
                one.answer.set_result((await asyncio.to_thread(png, image), len(batch)))

    async def _collect(self) -> list[_Waiting]:
        while True:
            self._arrival.clear()
            left_s = None
            if self._waiting:
                oldest = self._waiting[0]
                equal = [one for one in self._waiting if one.request.settings == oldest.request.settings]
                left_s = oldest.arrived_s + self._window_s - time.monotonic()
                if left_s <= 0 or len(equal) >= self._most:
                    batch = equal[: self._most]
                    self._waiting = [one for one in self._waiting if one not in batch]
                    return batch
            try:
                await asyncio.wait_for(self._arrival.wait(), left_s)
            except TimeoutError:
                continue


def build_app(models: StockModels, most: int, window_s: float) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.batcher = Batcher(models, most, window_s)
        running = asyncio.create_task(app.state.batcher.run())
        yield
        running.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.post(DRAW_PATH)
    async def draw(request: DrawRequest) -> Response:
        data, size = await app.state.batcher.draw(request)
        return Response(data, media_type="image/png", headers={BATCH_HEADER: str(size)})

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--most", type=int, required=True, help="most requests of one batch")
    parser.add_argument("--window-s", type=float, required=True)
    options = parser.parse_args()
    app = build_app(StockModels([options.model]), options.most, options.window_s)
    uvicorn.run(app, host="127.0.0.1", port=options.port, access_log=False)


if __name__ == "__main__":
    main()
