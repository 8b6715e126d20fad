"""What a scrape of a worker's metrics takes: `python -m tests.benchmarks.scrape`.

typical: three models, two sizes, up to four rows. full: every label that there is, of three models.
"""

import statistics
import time

from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest

from tests.workers.test_metrics import drive, series
from workers.metric_labels import ROWS_BUCKETS, SIZE_BUCKETS
from workers.metrics import WorkerMetrics

SCRAPES = 100


def main() -> None:
    disable_created_metrics()  # type: ignore[no-untyped-call]  # as a worker does
    print(f"{'':8} {'series':>7} {'KiB':>6} {'p50 ms':>7} {'p99 ms':>7}")
    for name, sides, rows in (
        ("typical", (512, 1024), (1, 2, 4)),
        ("full", SIZE_BUCKETS, (*ROWS_BUCKETS, 16)),
    ):
        registry = CollectorRegistry()
        drive(WorkerMetrics(registry, usd_per_hour=1.0), sides, rows)
        took_ms = []
        for _ in range(SCRAPES):
            started_s = time.perf_counter()
            text = generate_latest(registry)
            took_ms.append((time.perf_counter() - started_s) * 1000)
        p50, p99 = statistics.median(took_ms), statistics.quantiles(took_ms, n=100)[98]
        print(f"{name:8} {series(registry):7} {len(text) / 1024:6.0f} {p50:7.1f} {p99:7.1f}")


if __name__ == "__main__":
    main()
