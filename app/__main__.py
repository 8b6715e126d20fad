"""`python -m app`: settings -> create_app -> serve."""

import sys

from prometheus_client import disable_created_metrics
from pydantic import ValidationError

from app.catalog.catalog import CatalogError
from app.jobs.environment import wrong_settings
from app.jobs.logs import configure_logs
from app.jobs.store import StoreError
from app.main import create_app
from app.serving import serve
from app.settings import GatewaySettings


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
    serve(app, settings)
    return 0


def _refuse(*problems: str) -> int:
    sys.stderr.writelines(f"gateway: {problem}\n" for problem in problems)
    return 2


if __name__ == "__main__":
    sys.exit(main())
