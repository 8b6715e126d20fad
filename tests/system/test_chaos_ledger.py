"""The ledger of a chaos run finds each thing that must never be, and its clock of reclaims counts what it says."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from app.api.views import Status
from tests.system.chaos.api import SeenError, SeenImage, SeenJob
from tests.system.chaos.ledger import Entry, Ledger, Wrong
from tests.system.chaos.orders import Order
from tests.system.chaos.process import Span
from tests.system.chaos.reclaims import Held, reclaims

BYTES = b"a picture"
AT = datetime(2026, 1, 1, tzinfo=UTC)
ORDER = Order(
    "order-1", "tiny-sd3", "a red ring", seed=1, steps=4, n=1, priority="low", cancel_after_s=None, patience_s=None
)


def seen(status: Status, data: bytes = BYTES, **changes: object) -> SeenJob:
    image = SeenImage(index=0, seed=1, sha256=hashlib.sha256(data).hexdigest())
    job = SeenJob(
        id="img_1",
        status=status,
        created_at=AT,
        completed_at=AT,
        data=[image] if status is Status.COMPLETED else [],
        metadata={"tag": "order-1"},
        error=SeenError(code="worker_lost") if status is Status.FAILED else None,
    )
    return job.model_copy(update=changes)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def entry(ledger: Ledger) -> Entry:
    entry = ledger.send(ORDER)
    entry.job_id = "img_1"
    return entry


def test_a_job_that_is_completed_and_stays_so_is_fine(ledger: Ledger, entry: Entry) -> None:
    ledger.saw(entry, seen(Status.COMPLETED))
    ledger.saw_bytes(entry, 0, BYTES)
    ledger.audit([seen(Status.COMPLETED)])
    assert ledger.problems == []


def cancel(entry: Entry) -> None:
    entry.cancel_asked = entry.cancel_confirmed = True


def changed(ledger: Ledger, entry: Entry) -> None:
    ledger.saw(entry, seen(Status.COMPLETED))
    ledger.saw(entry, seen(Status.COMPLETED, b"another"))


def ended_again(ledger: Ledger, entry: Entry) -> None:
    ledger.saw(entry, seen(Status.COMPLETED))
    ledger.audit([seen(Status.COMPLETED, completed_at=datetime(2026, 1, 2, tzinfo=UTC))])


def damaged(ledger: Ledger, entry: Entry) -> None:
    ledger.saw(entry, seen(Status.COMPLETED))
    ledger.saw_bytes(entry, 0, b"another")


def shown(ledger: Ledger, entry: Entry) -> None:
    cancel(entry)
    ledger.saw(entry, seen(Status.COMPLETED))


def drawn_differently(ledger: Ledger, entry: Entry) -> None:
    ledger.saw(entry, seen(Status.COMPLETED))
    ledger.saw(ledger.send(ORDER), seen(Status.COMPLETED, b"another"))


def doubled(ledger: Ledger, entry: Entry) -> None:
    entry.ended, entry.completed_at = Status.CANCELED, AT
    ledger.audit([seen(Status.CANCELED), seen(Status.CANCELED, id="img_2")])


@pytest.mark.parametrize(
    ("wrong", "happens"),
    [
        (Wrong.LOST, lambda ledger, _: ledger.audit([seen(Status.IN_PROGRESS)])),
        (Wrong.VANISHED, lambda ledger, _: ledger.audit([])),
        (Wrong.DUPLICATE, doubled),
        (Wrong.UNKNOWN, lambda ledger, _: ledger.audit([seen(Status.CANCELED, metadata={"tag": "nobody's"})])),
        (Wrong.FAILED, lambda ledger, entry: ledger.saw(entry, seen(Status.FAILED))),
        (Wrong.CANCELED, lambda ledger, entry: ledger.saw(entry, seen(Status.CANCELED))),
        (Wrong.SHOWN, shown),
        (Wrong.CHANGED, changed),
        (Wrong.CHANGED, ended_again),
        (Wrong.BYTES, damaged),
        (Wrong.PICTURE, drawn_differently),
    ],
)
def test_it_finds(ledger: Ledger, entry: Entry, wrong: Wrong, happens: Callable[[Ledger, Entry], None]) -> None:
    happens(ledger, entry)
    assert wrong in {found for found, _ in ledger.problems}


def test_what_was_accepted_unheard_is_counted_and_must_end_too(ledger: Ledger) -> None:
    ledger.send(ORDER).was_ambiguous = True
    ledger.audit([seen(Status.QUEUED)])
    assert ledger.late == 1
    assert [wrong for wrong, _ in ledger.problems] == [Wrong.LOST]


HELD = Held("img_1", "null-1.1", "lane", lost_s=100, lease_ends_s=103)
UP = [Span(0, 1000)]


@pytest.mark.parametrize(
    ("idle", "waited_s"),
    [
        ([], 0),
        ([Span(0, 1000)], 4),
        ([Span(0, 104), Span(106, 1000)], 2),
        ([Span(104, 106), Span(105, 106.5)], 2.5),
    ],
)
def test_a_reclaim_counts_the_time_with_an_idle_worker(idle: list[Span], waited_s: float) -> None:
    (reclaimed,) = reclaims([HELD], {"img_1": [99, 107, 120]}, {"lane": idle}, UP)
    assert (reclaimed.claimed_s, reclaimed.beyond_lease_s) == (107, waited_s)


@pytest.mark.parametrize("up", [[Span(0, 105), Span(106, 1000)], [Span(0, 90), Span(99, 1000)]])
def test_a_job_that_waited_while_valkey_was_away_is_not_counted(up: list[Span]) -> None:
    assert list(reclaims([HELD], {"img_1": [107]}, {"lane": []}, up)) == []


def test_a_job_that_nobody_claimed_again_is_not_counted() -> None:
    assert list(reclaims([HELD], {"img_1": [99]}, {"lane": []}, UP)) == []
