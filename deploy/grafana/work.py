"""The rows of what workers do: steps and batches, GPU and cost."""

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from deploy.grafana.panels import OF, RATE, heat, lines, mean, quantile, query


def steps(board: Dashboard) -> None:
    board.with_row(Row("Steps and batches"))
    board.with_panel(
        heat(
            "Steps an image",
            "Finished images by the steps they took.",
            "short",
            f"sum by (le) (increase(darkroom_image_steps_bucket{OF}{RATE}))",
            width=8,
        )
    )
    board.with_panel(
        lines(
            "Steps an image, mean",
            "Of the images finished.",
            "short",
            query(mean("darkroom_image_steps"), "{{model}}"),
        )
    )
    board.with_panel(
        lines(
            "Steps a second",
            "Each row of a batch that takes a step is an image's step.",
            "ops",
            query(f"model:darkroom_denoise_steps:rate5m{OF}", "{{model}}"),
        )
    )
    board.with_panel(
        lines(
            "A step of a batch",
            "Seconds of one forward, by size.",
            "s",
            query(
                quantile(0.5, "darkroom_denoise_step_seconds", "model", "size_bucket"), "{{model}} {{size_bucket}} p50"
            ),
            query(
                quantile(0.99, "darkroom_denoise_step_seconds", "model", "size_bucket"),
                "{{model}} {{size_bucket}} p99",
            ),
        )
    )
    board.with_panel(
        lines(
            "A step of a batch by its rows",
            "What a larger batch costs; p50.",
            "s",
            query(quantile(0.5, "darkroom_denoise_step_seconds", "model", "rows"), "{{model}} {{rows}} rows"),
        )
    )
    board.with_panel(
        heat(
            "Rows that shared a step",
            "Batches by their rows; a guided request is two.",
            "short",
            f"sum by (le) (increase(darkroom_batch_rows_bucket{OF}{RATE}))",
            width=8,
        )
    )
    board.with_panel(lines("Rows a step, mean", "By model.", "short", query(mean("darkroom_batch_rows"), "{{model}}")))
    board.with_panel(
        lines(
            "Room that nobody took",
            "Images more that each worker could hold, on average.",
            "short",
            query(f"sum by (instance) (rate(darkroom_slots_idle_seconds_total{RATE}))", "{{instance}}"),
            query("sum by (instance) (darkroom_worker_jobs_in_progress)", "{{instance}} holds (jobs)"),
        )
    )
    board.with_panel(
        lines(
            "Wasted steps a second",
            "Steps that came to nothing, by why.",
            "ops",
            query(f"sum by (reason) (rate(darkroom_wasted_steps_total{RATE}))", "{{reason}}"),
            stacked=True,
        )
    )


def cost(board: Dashboard) -> None:
    board.with_row(Row("GPU and cost"))
    board.with_panel(
        lines(
            "GPU memory",
            "In use, the most that this worker's tensors took, and all there is. Nothing on a CPU.",
            "bytes",
            query("max by (instance) (darkroom_gpu_memory_used_bytes)", "{{instance}} used"),
            query("max by (instance) (darkroom_gpu_memory_peak_bytes)", "{{instance}} peak"),
            query("max by (instance) (darkroom_gpu_memory_total_bytes)", "{{instance}} total"),
        )
    )
    board.with_panel(
        lines(
            "GPU busy",
            "The share of its time that each worker's device encodes, denoises or decodes.",
            "percentunit",
            query(f"sum by (instance) (rate(darkroom_gpu_seconds_total{RATE}))", "{{instance}}"),
        )
    )
    board.with_panel(
        lines(
            "GPU-seconds an image",
            "Over five minutes.",
            "s",
            query(f"model:darkroom_gpu_seconds_per_image:rate5m{OF}", "{{model}}"),
        )
    )
    board.with_panel(
        lines(
            "Cost of an image",
            "Its GPU-seconds at the price of DARKROOM_GPU_USD_PER_HOUR. Nothing where no price is set.",
            "currencyUSD",
            query(f"model:darkroom_cost_usd_per_image:rate5m{OF}", "{{model}}"),
        )
    )
    board.with_panel(
        lines(
            "Cost an hour",
            "Of the seconds that devices worked; idle ones are not in it.",
            "currencyUSD",
            query(f"3600 * sum by (model) (rate(darkroom_cost_usd_total{OF}{RATE}))", "{{model}}"),
            stacked=True,
        )
    )
    board.with_panel(
        lines(
            "Pixels a second",
            "Of completed jobs.",
            "short",
            query(f"sum(rate(darkroom_pixels_generated_total{RATE}))", "pixels"),
        )
    )
    board.with_panel(
        lines(
            "Loading a model",
            "Seconds, mean over the workers.",
            "s",
            query(
                f"sum by (model) (darkroom_model_load_seconds_sum{OF})"
                f" / sum by (model) (darkroom_model_load_seconds_count{OF})",
                "{{model}}",
            ),
        )
    )
    board.with_panel(
        lines(
            "Prompts already encoded",
            "The share of prompts that were in the cache.",
            "percentunit",
            query(
                f"sum(rate(darkroom_prompt_cache_hits_total{RATE})) / (sum("
                f"rate(darkroom_prompt_cache_hits_total{RATE}) + rate(darkroom_prompt_cache_misses_total{RATE})) > 0)",
                "hits",
            ),
        )
    )
    board.with_panel(
        lines(
            "Encoded prompts kept",
            "On each worker's device.",
            "bytes",
            query("max by (instance) (darkroom_prompt_cache_bytes)", "{{instance}}"),
        )
    )
