"""One attempt to tell one receiver, and nothing of what it answers but whether it took the message."""

import asyncio
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum

import httpx
from standardwebhooks import Webhook

from app.webhooks.target import Resolve, TargetError, parse_target, pinned_address

_TIMEOUT_S = 10.0
_GONE = 410


class Outcome(StrEnum):
    """Also the label of the metric. `refused`: no webhook goes there, now or later."""

    DELIVERED = "delivered"
    FAILED = "failed"
    REFUSED = "refused"


class Sender:
    def __init__(
        self,
        resolve: Resolve,
        *,
        allow_private: bool,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        """tls: whose certificates are trusted; None: those of the public authorities."""
        self._resolve = resolve
        self._allow_private = allow_private
        self._timeout_s = timeout_s
        # The environment's proxies would connect to where we did not look; redirects lead there too.
        self._http = httpx.AsyncClient(
            verify=tls if tls is not None else True,
            trust_env=False,
            follow_redirects=False,
            timeout=timeout_s,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def send(self, url: str, message_id: str, body: str, secret: bytes) -> Outcome:
        """Post a message, signed as Standard Webhooks has it."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._send(url, signed_headers(message_id, body, secret, datetime.now(UTC)), body)
        except TargetError:
            return Outcome.REFUSED
        except (httpx.HTTPError, OSError, TimeoutError):
            return Outcome.FAILED

    async def _send(self, url: str, headers: Mapping[str, str], body: str) -> Outcome:
        target = parse_target(url, allow_private=self._allow_private)
        address = await pinned_address(target, self._resolve, allow_private=self._allow_private)
        request = self._http.build_request(
            "POST",
            httpx.URL(scheme=target.scheme, host=address, port=target.port, raw_path=target.path.encode("ascii")),
            content=body,
            headers={**headers, "Host": target.authority},
            # The certificate must be the name's, though the connection is to its address.
            extensions={"sni_hostname": target.host.strip("[]")},
        )
        # Streamed and closed at once: how long the answer is, and what it says, is all the same.
        response = await self._http.send(request, stream=True)
        await response.aclose()
        if response.status_code == _GONE:
            return Outcome.REFUSED
        return Outcome.DELIVERED if response.is_success else Outcome.FAILED


def signed_headers(message_id: str, body: str, secret: bytes, now: datetime) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "User-Agent": "darkroom",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, now, body),
    }
