"""What the gateway is told by its environment."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.jobs.environment import RedisUrl


class GatewaySettings(BaseSettings):
    """Environment variables, each with the prefix DARKROOM_."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_", frozen=True)

    redis_url: RedisUrl = "redis://127.0.0.1:6379/0"
    store_url: str = "file:///var/lib/darkroom"
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Models offered, comma-separated; none: every model of the catalog."
    )
    model_folders: Annotated[dict[str, Path], NoDecode] = Field(
        default={},
        validation_alias="DARKROOM_MODELS",
        description="Folders of the NAME=/folder entries of `models`: only their tokenizers are read.",
    )
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    require_keys: bool = Field(
        default=False,
        description="Ask for keys even while none was ever made. Always so beyond loopback; elsewhere from the first.",
    )
    allow_open_network: bool = Field(
        default=False, description="Beyond loopback too, ask for keys only once the first was made."
    )
    url_secret: SecretStr | None = Field(
        default=None, min_length=32, description="What signs addresses; none: one is made, and kept in the queue."
    )
    url_lifetime_s: int = Field(default=3600, ge=1, description="Signed addresses last one to two of these.")
    requests_per_minute: int | None = Field(default=None, ge=1, description="Image requests of one tenant.")
    megapixel_steps_per_hour: int | None = Field(
        default=None, ge=1, description="Width x height x steps x n of one tenant's requests, in millions."
    )
    max_request_megapixel_steps: int = Field(
        default=1_200, ge=1, description="The same of one request: about ten images of 2 megapixels in 57 steps."
    )
    public_base_url: str | None = Field(
        default=None, description="What clients reach this server by; none: the address of each request."
    )
    max_body_bytes: int = Field(default=262_144, gt=0)
    body_timeout_s: float = Field(default=30.0, gt=0, description="Longest that a request's body may take to arrive.")
    max_prompt_chars: int = Field(default=10_000, gt=0)
    max_images_per_request: int = Field(default=10, ge=1)
    wait_timeout_s: float = Field(
        default=300.0, gt=0, description="Longest that a synchronous API waits for its picture before it gives up."
    )
    max_queued: int = Field(default=10_000, ge=1, description="Most jobs waiting for one model.")
    max_open: int = Field(default=10_000, ge=1, description="Most jobs of one tenant that are not over.")
    max_attempts: int = Field(default=3, ge=1, description="A job that failed so often is not tried again.")
    max_crashes: int = Field(default=3, ge=1, description="A job that lost so many workers is dead.")
    wait_for_disk: bool = Field(
        default=False,
        description="Accept a job when the queue's disk has it, by WAITAOF: for a server with appendfsync everysec."
        " Not needed with appendfsync always, which Darkroom's own has.",
    )
    keep_pictures_s: float | None = Field(
        default=7 * 24 * 3600.0,
        gt=0,
        description="Seconds that pictures are kept after a job's end; its record stays a day longer. Empty: for ever.",
    )
    min_free_mib: int = Field(
        default=256,
        ge=0,
        description="With less than this free on the image store's disk, no jobs are accepted. A worker's 24 images in"
        " flight need some 200 MiB at 2048x2048.",
    )
    webhooks: bool = Field(default=False, description="Tell a job's end to the address that its request names.")
    webhook_allow_private: bool = Field(
        default=False, description="For tests: webhooks over http and into closed networks, this machine included."
    )
    admin_port: int | None = Field(
        default=None, ge=0, le=65535, description="Where /metrics and the docs are then, and nowhere else."
    )
    admin_host: str = Field(default="127.0.0.1", description="Nobody is asked for a key there.")
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"

    @field_validator("models", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        # A worker's list may say NAME=/folder; see model_folders.
        if not isinstance(value, str):
            return value
        return tuple(name for part in value.split(",") if (name := part.partition("=")[0].strip()))

    @field_validator("keep_pictures_s", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("model_folders", mode="before")
    @classmethod
    def _folders(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = (part.partition("=") for part in value.split(","))
        return {name.strip(): folder.strip() for name, _, folder in pairs if folder.strip()}

    @field_validator("log_level", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("public_base_url")
    @classmethod
    def _is_absolute(cls, value: str | None) -> str | None:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError(f"{value!r} does not start with http:// or https://")
        return value

    @property
    def always_asks_for_keys(self) -> bool:
        """Whether a key is asked for even while there is none: who reaches the server is not always its owner."""
        return self.require_keys or not (self.allow_open_network or _is_loopback(self.host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
