"""Open-loop load: every request is sent when it is due, whatever became of those before it.

A latency counts from the moment its request was due, so that a client that falls behind does not hide it.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx

from tests.benchmarks.serve.contenders.contender import Contender, DrawError
from tests.benchmarks.serve.workloads import Arrival

PATIENCE_S = 240.0  # for one request
_LOOK_EVERY_S = 0.5
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request's end. latency_s: from when it was due; None without a picture. sent_late_s: the client's fault."""

    kind: str
    due_s: float
    latency_s: float | None
    sent_late_s: float
    batch_size: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """A load as it was borne. complete: False when it was cut short, because too many were too late already."""

    outcomes: tuple[Outcome, ...]
    count: int
    seconds: float
    complete: bool


async def bear(
    contender: Contender,
    url: str,
    arrivals: Sequence[Arrival],
    limits_s: Mapping[str, float],
    give_up_share: float,
) -> Load:
    """Send the load and wait for its last answer.

    limits_s: by class, the latency above which a request is late. Once more than `give_up_share` of all are late,
    nothing more is sent.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, limits=limits, trust_env=False) as client:
        started_s = time.monotonic()
        outcomes: dict[int, Outcome] = {}

        async def one(i: int, arrival: Arrival) -> None:
            outcomes[i] = await _draw(contender, client, arrival, started_s)

        async def send() -> None:
            for i, arrival in enumerate(arrivals):
                await asyncio.sleep(started_s + arrival.due_s - time.monotonic())
                sent.append(asyncio.create_task(one(i, arrival)))

        def late() -> int:
            now_s = time.monotonic() - started_s
            count = 0
            for i, arrival in enumerate(arrivals[: len(sent)]):
                outcome = outcomes.get(i)
                latency_s = now_s - arrival.due_s if outcome is None else outcome.latency_s
                count += latency_s is None or latency_s > limits_s[arrival.kind.name]
            return count

        sent: list[asyncio.Task[None]] = []
        sending = asyncio.create_task(send())
        while not sending.done() and late() <= give_up_share * len(arrivals):
            await asyncio.wait([sending], timeout=_LOOK_EVERY_S)
        complete = sending.done()
        sending.cancel()
        if complete:
            sending.result()
        await asyncio.gather(*sent)
    return Load(tuple(outcomes[i] for i in sorted(outcomes)), len(arrivals), time.monotonic() - started_s, complete)


async def _draw(contender: Contender, client: httpx.AsyncClient, arrival: Arrival, started_s: float) -> Outcome:
    due_s = started_s + arrival.due_s
    sent_late_s = time.monotonic() - due_s
    try:
        async with asyncio.timeout(PATIENCE_S):
            picture = await contender.draw(client, arrival.body())
    except (DrawError, httpx.HTTPError, TimeoutError) as error:
        return Outcome(arrival.kind.name, arrival.due_s, None, sent_late_s, 0, f"{type(error).__name__}: {error}"[:200])
    if not picture.png.startswith(_PNG):
        return Outcome(arrival.kind.name, arrival.due_s, None, sent_late_s, 0, "not a PNG")
    return Outcome(arrival.kind.name, arrival.due_s, picture.received_s - due_s, sent_late_s, picture.batch_size)
