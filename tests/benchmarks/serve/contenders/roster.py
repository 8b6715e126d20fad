"""Everybody who is compared, and how each is started."""

from collections.abc import Mapping, Sequence

from tests.benchmarks.serve.contenders.contender import Contender
from tests.benchmarks.serve.contenders.darkroom import Darkroom
from tests.benchmarks.serve.contenders.http_server import HttpServer
from tests.benchmarks.serve.workloads import MODEL

WINDOW_S = 0.05
BASELINE = "one-at-a-time"
DARKROOM = "darkroom"
_PACKAGE = "tests.benchmarks.serve.contenders"


def roster(first_body: Mapping[str, object], caps: Sequence[int]) -> list[Contender]:
    """The contenders; those that batch whole requests once for each cap on their batch."""
    return [
        _server(BASELINE, "stock_server", first_body, most=1, window_s=0.0),
        Darkroom(MODEL),
        *(_server(f"static-{cap}", "stock_server", first_body, cap, WINDOW_S) for cap in caps),
        *(_server(f"litserve-{cap}", "lit_server", first_body, cap, WINDOW_S) for cap in caps),
        *(_server(f"ray-serve-{cap}", "ray_server", first_body, cap, WINDOW_S) for cap in caps),
    ]


def _server(name: str, module: str, first_body: Mapping[str, object], most: int, window_s: float) -> HttpServer:
    options = ("--model", MODEL, "--most", str(most), "--window-s", str(window_s))
    return HttpServer(name, f"{_PACKAGE}.{module}", first_body, *options)
