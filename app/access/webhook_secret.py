"""What signs a tenant's webhooks."""

import hmac


def webhook_secret(server_secret: bytes, tenant: str) -> bytes:
    """A tenant's own, from the server's: no other tenant can sign what this one would believe."""
    return hmac.digest(server_secret, f"darkroom-webhook-v1\n{tenant}".encode(), "sha256")
