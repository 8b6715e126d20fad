"""The row of what went wrong, and what became of it."""

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from deploy.grafana.panels import OF, RATE, lines, query, rows


def reliability(board: Dashboard) -> None:
    board.with_row(Row("Reliability"))
    board.with_panel(
        lines(
            "Jobs in and out",
            "A second, over five minutes.",
            "ops",
            query(f"sum(model:darkroom_jobs_submitted:rate5m{OF})", "submitted"),
            query(f"sum(model:darkroom_jobs_finished:rate5m{OF})", "ended"),
        )
    )
    board.with_panel(
        lines(
            "How jobs end",
            "A second, by status and error code.",
            "ops",
            query(f"sum by (status, code) (rate(darkroom_jobs_finished_total{OF}{RATE}))", "{{status}} {{code}}"),
            stacked=True,
        )
    )
    board.with_panel(
        lines(
            "Attempts that were not the last",
            "In the time of one point: failed and repeated, taken back from dead workers, gone on from a checkpoint,"
            " refused since the job was another worker's by then.",
            "short",
            query(f"sum by (reason) (increase(darkroom_job_retries_total{RATE}))", "retried: {{reason}}"),
            query(f"sum(increase(darkroom_jobs_reclaimed_total{RATE}))", "reclaimed"),
            query(f"sum(increase(darkroom_jobs_resumed_total{RATE}))", "resumed"),
            query(f"sum(increase(darkroom_completions_fenced_total{RATE}))", "fenced"),
        )
    )
    board.with_panel(
        lines(
            "Trouble in batches",
            "In the time of one point: batches halved, steps that were numbers only in float32, images given up since"
            " they were none then either.",
            "short",
            query(f"sum by (reason) (increase(darkroom_batch_splits_total{RATE}))", "split: {{reason}}"),
            query(f"sum(increase(darkroom_repaired_steps_total{RATE}))", "repaired steps"),
            query(f"sum(increase(darkroom_invalid_outputs_total{RATE}))", "invalid outputs"),
        )
    )
    board.with_panel(
        lines(
            "Checkpoints a second",
            "Half-developed images kept in the store.",
            "ops",
            query(f"sum(rate(darkroom_checkpoints_written_total{RATE}))", "written"),
        )
    )
    board.with_panel(
        lines(
            "Checkpoint bytes a second",
            "What they take of the way to the store.",
            "Bps",
            query(f"sum(rate(darkroom_checkpoint_bytes_total{RATE}))", "bytes"),
        )
    )
    board.with_panel(
        lines(
            "HTTP answers",
            "A second, by code.",
            "reqps",
            query(f"sum by (code) (rate(darkroom_http_requests_total{RATE}))", "{{code}}"),
            stacked=True,
        )
    )
    board.with_panel(
        lines(
            "HTTP p99",
            "Seconds to answer, by route.",
            "s",
            query(
                "histogram_quantile(0.99, sum by (route, le) ("
                f"rate(darkroom_http_request_duration_seconds_bucket{RATE})))",
                "{{route}}",
            ),
        )
    )
    board.with_panel(
        lines(
            "Turned away, and told",
            "Requests over a limit, by which one, and webhook deliveries, by outcome, a second.",
            "ops",
            query(f"sum by (reason) (rate(darkroom_rate_limited_total{RATE}))", "limited: {{reason}}"),
            query(f"sum by (outcome) (rate(darkroom_webhook_deliveries_total{RATE}))", "webhook: {{outcome}}"),
        )
    )
    board.with_panel(
        lines(
            "Live workers",
            "Workers that serve each model.",
            "short",
            query(f"model:darkroom_workers_live:max{OF}", "{{model}}"),
        )
    )
    board.with_panel(
        lines(
            "Who is up",
            "1 while a worker claims jobs, 0 from the word to stop until it has handed in what it held; 1 while the"
            " queue's server answers a gateway.",
            "short",
            query("max by (instance) (darkroom_worker_up)", "{{instance}}"),
            query("max(darkroom_queue_up)", "queue server"),
        )
    )
    board.with_panel(
        rows("Versions", "Of each worker.", "max by (instance, version, torch, diffusers) (darkroom_build_info)")
    )
