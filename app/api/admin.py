"""The application behind the admin port: what its owner watches the server by, and the API's description.

Nobody is asked for a key here: it listens on loopback, or where its owner says that the network is closed.
"""

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse, JSONResponse, Response

from app.api import health
from app.api.handlers import add_error_handlers
from app.middleware import RequestMiddleware

_DOCUMENT = "/openapi.json"


def create_admin_app(public: FastAPI) -> FastAPI:
    """Build it beside the public application, on the same objects."""
    services = public.state.services
    app = FastAPI(title="Darkroom, admin", openapi_url=None, redirect_slashes=False)
    app.state.services = services
    app.include_router(health.router)
    app.include_router(health.metrics_router)

    async def document() -> Response:
        return JSONResponse(public.openapi())

    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(openapi_url=_DOCUMENT, title=public.title)

    app.add_api_route(_DOCUMENT, document)
    app.add_api_route("/docs", docs)
    settings = services.settings
    add_error_handlers(app, settings.max_body_bytes)
    app.add_middleware(
        RequestMiddleware,
        metrics=services.metrics,
        max_body_bytes=settings.max_body_bytes,
        body_timeout_s=settings.body_timeout_s,
    )
    return app
