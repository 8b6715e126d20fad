"""Ray Serve with `@serve.batch`, around the stock pipelines.

    python -m tests.benchmarks.serve.contenders.ray_server --port 8000 --model tiny-sd3 --most 4 --window-s 0.05

Its batches hold whatever arrived within the window. The pipeline wants equal settings, so that those with equal ones
are drawn together.
"""

import argparse
import asyncio
import signal
import sys
import threading

import ray
from fastapi import FastAPI, Response
from PIL import Image
from ray import serve

from tests.benchmarks.serve.contenders.contender import BATCH_HEADER, DRAW_PATH
from tests.benchmarks.serve.stock import DrawRequest, StockModels, png

_MOST_ONGOING = 100_000  # the load decides what waits, not Ray's own limit of 5
_OBJECT_STORE_BYTES = 100 * 2**20

http = FastAPI()


def build_app(model: str, most: int, window_s: float) -> serve.Application:
    @serve.deployment(max_ongoing_requests=_MOST_ONGOING, ray_actor_options={"num_cpus": 1})
    @serve.ingress(http)
    class Draw:
        def __init__(self) -> None:
            self._models = StockModels([model])

        @http.post(DRAW_PATH)
        async def draw(self, request: DrawRequest) -> Response:
            image, size = await self._batch(request)
            data = await asyncio.to_thread(png, image)
            return Response(data, media_type="image/png", headers={BATCH_HEADER: str(size)})

        @serve.batch(max_batch_size=most, batch_wait_timeout_s=window_s)  # type: ignore[untyped-decorator]
        async def _batch(self, requests: list[DrawRequest]) -> list[tuple[Image.Image, int]]:
            # Off the replica's event loop, which must go on taking requests.
            return await asyncio.to_thread(self._models.draw_groups, requests)

    return Draw.bind()  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--most", type=int, required=True)
    parser.add_argument("--window-s", type=float, required=True)
    options = parser.parse_args()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda signum, frame: ended.set())
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        configure_logging=False,
        _node_ip_address="127.0.0.1",
    )
    serve.start(http_options={"host": "127.0.0.1", "port": options.port})
    serve.run(build_app(options.model, options.most, options.window_s), route_prefix="/")
    ended.wait()
    serve.shutdown()
    ray.shutdown()
    sys.exit(0)


if __name__ == "__main__":
    main()
