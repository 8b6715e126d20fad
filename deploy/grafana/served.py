"""The rows of what is asked and served: golden signals, stages, how long jobs take."""

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from deploy.grafana.panels import OF, RATE, heat, lines, number, quantile, query


def golden_signals(board: Dashboard) -> None:
    board.with_row(Row("Golden signals"))
    board.with_panel(
        number(
            "Images",
            "Finished in the time shown.",
            "short",
            f"sum(increase(darkroom_images_generated_total{OF}[$__range]))",
        )
    )
    board.with_panel(number("Waiting", "Jobs in the queue.", "short", f"sum(model:darkroom_queue_depth:max{OF})"))
    board.with_panel(
        number(
            "In progress", "Jobs that workers hold.", "short", f"sum(max by (model) (darkroom_jobs_in_progress{OF}))"
        )
    )
    board.with_panel(
        number("Oldest waits", "Of the jobs in the queue.", "s", f"max(model:darkroom_queue_oldest_seconds:max{OF})")
    )
    board.with_panel(
        number(
            "Workers",
            "That said they live within the last seconds.",
            "short",
            f"max(model:darkroom_workers_live:max{OF})",
        )
    )
    board.with_panel(
        number("Dead jobs", "Given up after their workers died.", "short", "max(darkroom_dead_jobs)", red_above=1)
    )
    board.with_panel(
        lines(
            "Images a second",
            "Pictures of completed jobs.",
            "ops",
            query(f"sum by (model) (rate(darkroom_images_generated_total{OF}{RATE}))", "{{model}}"),
        )
    )
    board.with_panel(
        lines(
            "From submission to picture",
            "Of five minutes' completed jobs, with the objective that the alert watches.",
            "s",
            query(f"model:darkroom_job_e2e_seconds:p50_5m{OF}", "{{model}} p50"),
            query(f"model:darkroom_job_e2e_seconds:p95_5m{OF}", "{{model}} p95"),
            query(f"model:darkroom_job_e2e_seconds:p99_5m{OF}", "{{model}} p99"),
            query(f"model:darkroom_job_e2e_seconds:objective{OF}", "{{model}} objective"),
        )
    )
    board.with_panel(
        lines(
            "Failed jobs",
            "The share of five minutes' ended jobs.",
            "percentunit",
            query(f"model:darkroom_jobs_failed:ratio_rate5m{OF}", "{{model}}"),
        )
    )
    board.with_panel(
        lines(
            "Oldest waiting job",
            "Seconds since it was submitted.",
            "s",
            query(f"model:darkroom_queue_oldest_seconds:max{OF}", "{{model}}"),
        )
    )
    board.with_panel(
        lines(
            "Waiting jobs",
            "By priority.",
            "short",
            query(f"sum by (priority) (max by (model, priority) (darkroom_queue_depth{OF}))", "{{priority}}"),
            stacked=True,
        )
    )
    board.with_panel(
        lines(
            "Waiting work",
            "GPU-seconds in the queue, and when the workers that live now will have done them.",
            "s",
            query(f"model:darkroom_queue_work_seconds:max{OF}", "{{model}} work"),
            query(f"model:darkroom_queue_drain_seconds:estimate{OF}", "{{model}} done in"),
        )
    )


def stages(board: Dashboard) -> None:
    board.with_row(Row("Where the time goes"))
    board.with_panel(
        lines(
            "Seconds of each stage, an image",
            "An image's seconds in each stage; in a batch several spend the same ones.",
            "s",
            query(
                f"sum by (stage) (rate(darkroom_stage_seconds_sum{OF}{RATE}))"
                f" / ignoring (stage) group_left () (sum(rate(darkroom_images_generated_total{OF}{RATE})) > 0)",
                "{{stage}}",
            ),
            stacked=True,
        )
    )
    board.with_panel(
        lines(
            "Images in each stage",
            "Image-seconds a second: how many are in each stage at once.",
            "short",
            query(f"sum by (stage) (model_stage:darkroom_stage_seconds:rate5m{OF})", "{{stage}}"),
            stacked=True,
        )
    )
    board.with_panel(
        lines(
            "Waiting against drawing, p95",
            "From submission to claim, and from claim to completion.",
            "s",
            query(quantile(0.95, "darkroom_job_queue_seconds", "model"), "{{model}} in the queue"),
            query(quantile(0.95, "darkroom_job_inference_seconds", "model"), "{{model}} on a worker"),
        )
    )


def latency(board: Dashboard) -> None:
    board.with_row(Row("How long jobs take"))
    board.with_panel(
        heat(
            "Completed jobs by their seconds",
            "From submission to picture.",
            "s",
            f"sum by (le) (increase(darkroom_job_e2e_seconds_bucket{OF}{RATE}))",
        )
    )
    board.with_panel(
        heat(
            "Taken over promised",
            "1: as long as was said when it came; 2: twice as long.",
            "short",
            f"sum by (le) (increase(darkroom_job_eta_error_ratio_bucket{OF}{RATE}))",
            width=6,
        )
    )
    board.with_panel(
        lines(
            "Taken over promised, median",
            "The alert watches that it is between 0.5 and 2.",
            "short",
            query(f"model:darkroom_job_eta_error_ratio:p50_15m{OF}", "{{model}}"),
            width=6,
        )
    )
