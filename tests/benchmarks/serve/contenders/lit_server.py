"""LitServe with batching, around the stock pipelines.

    python -m tests.benchmarks.serve.contenders.lit_server --port 8000 --model tiny-sd3 --most 4 --window-s 0.05

Its batches hold whatever arrived within the window. The pipeline wants equal settings, so that those with equal ones
are drawn together.
"""

import argparse
from collections.abc import Sequence

import litserve
from fastapi import Response
from PIL import Image

from tests.benchmarks.serve.contenders.contender import BATCH_HEADER, DRAW_PATH
from tests.benchmarks.serve.stock import DrawRequest, StockModels, png

Drawing = tuple[Image.Image, int]


class DrawApi(litserve.LitAPI):  # type: ignore[misc]
    def __init__(self, model: str, most: int, window_s: float) -> None:
        super().__init__(max_batch_size=most, batch_timeout=window_s, api_path=DRAW_PATH)
        self._model = model

    def setup(self, device: str) -> None:
        self._models = StockModels([self._model])

    def decode_request(self, request: dict[str, object]) -> DrawRequest:
        return DrawRequest.model_validate(request)

    def predict(self, requests: Sequence[DrawRequest]) -> Sequence[Drawing]:
        return self._models.draw_groups(requests)

    def encode_response(self, drawing: Drawing) -> Response:
        image, size = drawing
        return Response(png(image), media_type="image/png", headers={BATCH_HEADER: str(size)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--most", type=int, required=True)
    parser.add_argument("--window-s", type=float, required=True)
    options = parser.parse_args()
    server = litserve.LitServer(
        DrawApi(options.model, options.most, options.window_s), accelerator="cpu", workers_per_device=1, timeout=False
    )
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
