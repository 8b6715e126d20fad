"""`python -m app`: settings -> create_app -> uvicorn."""

import sys

import uvicorn
from prometheus_client import disable_created_metrics
from pydantic import ValidationError

from app.catalog.catalog import CatalogError
from app.jobs.environment import wrong_settings
from app.jobs.logs import configure_logs
from app.jobs.store import StoreError
from app.main import create_app
from app.settings import GatewaySettings

# Without a limit, one client that stops in the middle of its body keeps the process from ending.
_SHUTDOWN_S = 3


def main() -> int:
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more a counter, of no use to Prometheus
    try:
        settings = GatewaySettings()
        configure_logs(settings.log_level)
        app = create_app(settings)
    except ValidationError as error:
        return _refuse(*wrong_settings(error))
    except (CatalogError, StoreError) as error:
        return _refuse(str(error))
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_level=settings.log_level,
        access_log=False,
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )
    return 0


def _refuse(*problems: str) -> int:
    sys.stderr.writelines(f"gateway: {problem}\n" for problem in problems)
    return 2


if __name__ == "__main__":
    sys.exit(main())
