"""`darkroom keys`: made, listed and revoked on the queue's server itself; the gateway has no route for it."""

import base64
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import ValidationError

from app.access.errors import KeyNotFoundError, TooManyKeysError, UnreadableKeyError
from app.access.key import DEFAULT_TENANT, KeyRecord, Role, digest, new_key
from app.access.key_cache import REMEMBER_S
from app.access.key_store import KeyStore
from app.access.url_secret import UrlSecret
from app.access.webhook_secret import webhook_secret
from app.cli.errors import RedisError, UsageError
from app.cli.plain_words import in_plain_words
from app.cli.queue_server import DATA_DIR, DataDirOption, RedisUrlOption, with_server
from app.jobs.schema import Priority

T = TypeVar("T")

TenantOption = Annotated[str | None, typer.Option(help="Only this tenant's.", show_default=False)]


def keys_command() -> typer.Typer:
    command = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)
    command.command("create")(create)
    command.command("list")(list_keys)
    command.command("revoke")(revoke)
    command.command("webhook-secret")(show_webhook_secret)
    return command


def create(
    tenant: Annotated[str, typer.Option(help="Whose jobs it sees.")] = DEFAULT_TENANT,
    name: Annotated[str, typer.Option(help="A word to know it by.", show_default=False)] = "",
    role: Annotated[
        list[Role] | None, typer.Option(help="Repeatable. Default: submit and read.", show_default=False)
    ] = None,
    max_priority: Annotated[Priority, typer.Option(help="The highest it may ask for.")] = Priority.HIGH,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Default: the server's.", show_default=False)
    ] = None,
    megapixel_steps_per_hour: Annotated[
        int | None, typer.Option(min=1, help="Default: the server's.", show_default=False)
    ] = None,
    data_dir: DataDirOption = DATA_DIR,
    redis_url: RedisUrlOption = None,
) -> None:
    """Make a key. It is shown once: only a hash of it is kept."""
    with in_plain_words():
        key_id, secret, text = new_key()
        try:
            record = KeyRecord(
                id=key_id,
                tenant=tenant,
                name=name,
                sha256=digest(secret),
                roles=frozenset(role or (Role.SUBMIT, Role.READ)),
                max_priority=max_priority,
                requests_per_minute=requests_per_minute,
                megapixel_steps_per_hour=megapixel_steps_per_hour,
            )
        except ValidationError as error:
            raise _usage(error) from error
        _with_store(redis_url, data_dir, lambda store: store.create(record))
        print(text)


def list_keys(
    tenant: TenantOption = None, data_dir: DataDirOption = DATA_DIR, redis_url: RedisUrlOption = None
) -> None:
    """Show what is known of each key: never the key itself."""
    with in_plain_words():
        for record in _with_store(redis_url, data_dir, lambda store: store.of(tenant)):
            print(_line(record))


def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.", show_default=False)],
    data_dir: DataDirOption = DATA_DIR,
    redis_url: RedisUrlOption = None,
) -> None:
    """End a key, for good."""
    with in_plain_words():
        # Whoever pastes the whole key has pasted its secret into a shell's history, but means its id.
        _with_store(redis_url, data_dir, lambda store: store.revoke(key_id.removeprefix("dk_").partition(".")[0]))
        print(f"revoked; within {REMEMBER_S:g} seconds it opens nothing")


def show_webhook_secret(
    tenant: Annotated[str, typer.Option(help="Whose webhooks it signs.")] = DEFAULT_TENANT,
    url_secret: Annotated[
        str | None, typer.Option(envvar="DARKROOM_URL_SECRET", help="As the gateway has it.", show_default=False)
    ] = None,
    data_dir: DataDirOption = DATA_DIR,
    redis_url: RedisUrlOption = None,
) -> None:
    """Show what a tenant checks the signatures of its webhooks with, as Standard Webhooks writes it."""
    with in_plain_words():
        secret = with_server(redis_url, data_dir, lambda redis: UrlSecret(redis, url_secret).get())
        print("whsec_" + base64.b64encode(webhook_secret(secret, tenant)).decode())


def _with_store(redis_url: str | None, data_dir: Path, do: Callable[[KeyStore], Awaitable[T]]) -> T:
    try:
        return with_server(redis_url, data_dir, lambda redis: do(KeyStore(redis)))
    except TooManyKeysError as error:
        raise UsageError(f"{error}.") from error
    except KeyNotFoundError as error:
        raise UsageError(f"There is no key {error}.") from error
    except UnreadableKeyError as error:
        raise RedisError(f"Another version of Darkroom made the key {error}.") from error


def _line(record: KeyRecord) -> str:
    limits = [
        f"priority up to {record.max_priority}" if record.max_priority is not Priority.HIGH else "",
        f"{record.requests_per_minute} requests a minute" if record.requests_per_minute else "",
        f"{record.megapixel_steps_per_hour} megapixel-steps an hour" if record.megapixel_steps_per_hour else "",
    ]
    words = [
        record.id,
        record.tenant,
        ",".join(sorted(record.roles)),
        f"made {_day(record.created_ms)}",
        f"revoked {_day(record.revoked_ms)}" if record.revoked_ms else "active",
        record.name or "-",
        *filter(None, limits),
    ]
    return "  ".join(words)


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _usage(error: ValidationError) -> UsageError:
    [first, *_] = error.errors(include_url=False)
    if first["loc"] == ("tenant",):
        return UsageError("--tenant: write it in a-z, 0-9, - and _, 63 characters at most")
    return UsageError(f"--{str(first['loc'][0]).replace('_', '-')}: {first['msg']}")
