"""What the gateway measures, for Prometheus. Built on a registry that is handed in."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.jobs.queue import Tick
from app.jobs.schema import Priority, QueueStats

_HTTP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class GatewayMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.http_requests = Counter(
            "darkroom_http_requests", "HTTP requests answered", ["route", "method", "code"], registry=registry
        )
        self.http_request_seconds = Histogram(
            "darkroom_http_request_duration_seconds",
            "Seconds to answer an HTTP request",
            ["route"],
            buckets=_HTTP_BUCKETS,
            registry=registry,
        )
        self.jobs_submitted = Counter("darkroom_jobs_submitted", "Jobs accepted", ["model", "api"], registry=registry)
        self.jobs_finished = Counter(
            "darkroom_jobs_finished", "Jobs that ended here", ["model", "status", "code"], registry=registry
        )
        self.jobs_reclaimed = Counter(
            "darkroom_jobs_reclaimed", "Jobs taken back from workers whose lease had ended", registry=registry
        )
        self.rate_limited = Counter(
            "darkroom_rate_limited", "Image requests refused for a tenant's limit", ["reason"], registry=registry
        )
        self.webhook_deliveries = Counter(
            "darkroom_webhook_deliveries", "Attempts to tell of a job's end", ["outcome"], registry=registry
        )
        self.queue_depth = Gauge(
            "darkroom_queue_depth", "Jobs waiting, of each priority", ["model", "priority"], registry=registry
        )
        self.queue_work_seconds = Gauge(
            "darkroom_queue_work_seconds", "GPU-seconds that waiting jobs should take", ["model"], registry=registry
        )
        self.queue_oldest_seconds = Gauge(
            "darkroom_queue_oldest_seconds", "Seconds the oldest waiting job has waited", ["model"], registry=registry
        )
        self.jobs_in_progress = Gauge("darkroom_jobs_in_progress", "Jobs held by workers", ["model"], registry=registry)
        self.dead_jobs = Gauge("darkroom_dead_jobs", "Jobs given up after their workers died", registry=registry)
        self.workers_live = Gauge("darkroom_workers_live", "Workers serving the model", ["model"], registry=registry)
        self.queue_up = Gauge("darkroom_queue_up", "1 while the queue server answers", registry=registry)

    def count(self, tick: Tick) -> None:
        """Count what a tick of this gateway moved."""
        self.jobs_reclaimed.inc(tick.requeued)
        for labels in tick.finished():
            self.jobs_finished.labels(*labels).inc()

    def set_queue(self, stats: QueueStats, models: list[str]) -> None:
        for model in models:
            lane = stats.lanes.get(model)
            for priority in Priority:
                self.queue_depth.labels(model, priority).set(lane.queued_by_priority[priority] if lane else 0)
            self.queue_work_seconds.labels(model).set(lane.work_s if lane else 0)
            self.queue_oldest_seconds.labels(model).set(lane.oldest_s if lane else 0)
            self.jobs_in_progress.labels(model).set(lane.in_progress if lane else 0)
            self.workers_live.labels(model).set(stats.workers_live(model))
        self.dead_jobs.set(stats.dead)
