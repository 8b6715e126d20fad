"""What a worker is told by its environment."""

import os
import socket
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.jobs.environment import RedisUrl


class WorkerSettings(BaseSettings):
    """Environment variables, each with the prefix DARKROOM_."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_", frozen=True, allow_inf_nan=False)

    redis_url: RedisUrl = "redis://127.0.0.1:6379/0"
    store_url: str = "file:///var/lib/darkroom"
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("tiny-flux-schnell", "tiny-flux-dev", "tiny-sd3"),
        description="Models to serve, comma-separated: NAME, or NAME=/path/to/folder for weights that are here.",
    )
    worker_id: str = Field(default_factory=socket.gethostname)
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, mps ...")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="auto (bfloat16 on a GPU, float32 on a CPU), float32, bfloat16, float16."
    )
    torch_threads: int = Field(default=0, ge=0, description="CPU threads of the engine; 0: torch's own choice.")
    max_rows: int = Field(default=16, ge=2, le=1024, description="Most rows in one forward; a guided request is two.")
    max_images: int = Field(default=24, ge=1, description="No job is claimed while this many images are in flight.")
    encode_threads: int = Field(
        default_factory=lambda: min(4, max(1, (os.cpu_count() or 1) // 2)),
        ge=1,
        description="Threads that encode image files; when not set, half of the CPUs and at most 4.",
    )
    memory_budget_gib: float | None = Field(
        default=None,
        gt=0,
        description="GiB of weights on the device at once: the models used last stay, the others wait in host memory."
        " None: all of them stay.",
    )
    prompt_cache_mib: int = Field(default=256, ge=0, description="Encoded prompts that are kept on the device.")
    preview_every_s: float | None = Field(
        default=0.5, gt=0, description="Least seconds between two previews of an image; empty: none are made."
    )
    checkpoint_every_s: float | None = Field(
        default=5.0, gt=0, description="Least seconds between two checkpoints of an image; empty: none are kept."
    )
    calibration_s: float = Field(
        default=1.0,
        ge=0,
        description="Seconds a model, at the start, to measure what batches cost, looked at between forwards; 0: none,"
        " it is learnt on the way.",
    )
    lease_s: float = Field(default=15.0, gt=0)
    max_attempts: int = Field(default=3, ge=1, description="A job that failed so often is not tried again.")
    max_crashes: int = Field(default=3, ge=1, description="A job that lost so many workers is dead.")
    store_patience_s: float = Field(
        default=60.0, ge=0, description="How long to try again to store a picture, before its job fails."
    )
    min_free_mib: int = Field(
        default=256, ge=0, description="With less than this free on the image store's disk, no jobs are claimed."
    )
    step_timeout_s: float = Field(default=300.0, gt=0, description="A step longer than this is a hung device.")
    drain_timeout_s: float = Field(default=8.0, ge=0, description="Seconds to hand in finished images on the way out.")
    metrics_port: int = Field(default=0, ge=0, le=65535, description="Prometheus port; 0: none.")
    metrics_host: str = "127.0.0.1"
    gpu_usd_per_hour: float = Field(
        default=0.0, ge=0, description="What the device costs; 0: unknown, and no cost of models is shown."
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("models", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value

    @field_validator("memory_budget_gib", "preview_every_s", "checkpoint_every_s", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        return None if value == "" else value

    @model_validator(mode="after")
    def _serves_something(self) -> Self:
        if not self.models:
            raise ValueError("DARKROOM_MODELS names no model to serve")
        return self

    @property
    def model_folders(self) -> dict[str, Path | None]:
        """Model name -> folder given for it, or None to use the one its card says."""
        pairs = (entry.partition("=") for entry in self.models)
        return {name: Path(folder) if folder else None for name, _, folder in pairs}
