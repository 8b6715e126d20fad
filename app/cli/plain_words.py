"""Errors become one line on standard error, and an exit code."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from app.catalog.catalog import CatalogError
from app.cli.errors import CommandError

_INTERRUPTED = 130


@contextmanager
def in_plain_words() -> Iterator[None]:
    try:
        yield
    except (CommandError, CatalogError) as error:
        print(f"darkroom: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code if isinstance(error, CommandError) else 1) from error
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None
