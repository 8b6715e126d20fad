"""What the gateway is told by its environment."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
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
    allow_open_network: bool = Field(
        default=False, description="Bind beyond loopback although nobody is asked for a key."
    )
    public_base_url: str | None = Field(
        default=None, description="What clients reach this server by; none: the address of each request."
    )
    max_body_bytes: int = Field(default=262_144, gt=0)
    max_prompt_chars: int = Field(default=10_000, gt=0)
    max_images_per_request: int = Field(default=10, ge=1)
    wait_timeout_s: float = Field(
        default=300.0, gt=0, description="Longest that a synchronous API waits for its picture before it gives up."
    )
    max_queued: int = Field(default=10_000, ge=1, description="Most jobs waiting for one model.")
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"

    @field_validator("models", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        # A worker's list may say NAME=/folder; see model_folders.
        if not isinstance(value, str):
            return value
        return tuple(name for part in value.split(",") if (name := part.partition("=")[0].strip()))

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

    @model_validator(mode="after")
    def _closed_unless_asked(self) -> Self:
        if not self.allow_open_network and not _is_loopback(self.host):
            raise ValueError(
                f"refusing to listen on {self.host}: everybody who reaches that address could use this server without"
                " a key. Use 127.0.0.1, or set DARKROOM_ALLOW_OPEN_NETWORK=true where the network itself is closed."
            )
        return self


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
