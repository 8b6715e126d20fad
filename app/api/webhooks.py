"""What a request says of webhooks: checked, and kept beside its job."""

from app.api.schemas import ImageRequest, WebhookEvent
from app.errors import InvalidRequestError
from app.jobs.schema import ImageJob
from app.settings import GatewaySettings
from app.webhooks.outbox import Hook
from app.webhooks.target import TargetError, parse_target


def hook_of(request: ImageRequest, job: ImageJob, self_url: str, settings: GatewaySettings) -> Hook | None:
    """Raises InvalidRequestError. Where a name leads is looked up when it is time to tell, not now."""
    if request.webhook_url is None:
        return None
    if not settings.webhooks:
        raise InvalidRequestError(
            "invalid_webhook_url", "this server sends no webhooks; poll the job", param="webhook_url"
        )
    try:
        parse_target(request.webhook_url, allow_private=settings.webhook_allow_private)
    except TargetError as error:
        raise InvalidRequestError("invalid_webhook_url", f"webhook_url: {error}", param="webhook_url") from None
    return Hook(
        job_id=job.id,
        tenant=job.tenant,
        url=request.webhook_url,
        events=tuple(request.webhook_events or WebhookEvent),
        self_url=self_url,
    )
