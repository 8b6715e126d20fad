"""`python -m app`: settings -> create_app -> uvicorn."""

import sys

import uvicorn
from pydantic import ValidationError

from app.catalog.catalog import CatalogError
from app.jobs.logs import configure_logs
from app.jobs.store import StoreError
from app.main import create_app
from app.settings import GatewaySettings


def main() -> int:
    try:
        settings = GatewaySettings()
        configure_logs(settings.log_level)
        app = create_app(settings)
    except (CatalogError, StoreError, ValidationError) as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 2
    uvicorn.run(app, host=settings.host, port=settings.port, log_level=settings.log_level, access_log=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
