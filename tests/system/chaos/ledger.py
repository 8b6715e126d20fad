"""What the clients know for sure, kept outside of Darkroom: what was accepted, how it ended, and its bytes."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from app.api.views import Status
from tests.system.chaos.api import ENDED, SeenJob
from tests.system.chaos.orders import Order


class Wrong(StrEnum):
    """What must never be found."""

    LOST = "accepted, but not ended"
    VANISHED = "accepted, but not listed"
    DUPLICATE = "two jobs of one request"
    UNKNOWN = "a job that nobody asked for"
    FAILED = "ended as failed"
    CANCELED = "canceled, though nobody asked"
    SHOWN = "completed after its cancellation was confirmed"
    CHANGED = "ended, and then changed"
    BYTES = "bytes that are not those of the record"
    PICTURE = "another picture than the same request drew before"


@dataclass(slots=True)
class Entry:
    """One request of a client. completed_at, sha256 (by image): as the record said when the job had ended."""

    order: Order
    job_id: str | None = None
    was_ambiguous: bool = False
    cancel_asked: bool = False
    cancel_confirmed: bool = False
    ended: Status | None = None
    completed_at: datetime | None = None
    error_code: str = ""
    sha256: tuple[str, ...] = ()


@dataclass(slots=True)
class Ledger:
    """entries: by the order's tag, which the job carries as metadata. late: accepted although its submission had been
    looked for in vain; nobody was told that it was refused."""

    entries: dict[str, Entry] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    problems: list[tuple[Wrong, str]] = field(default_factory=list)
    readings_again: int = 0
    downloads: int = 0
    late: int = 0
    _pictures: dict[tuple[str, str, int, int], str] = field(default_factory=dict)
    _drawn: Counter[tuple[str, str, int, int]] = field(default_factory=Counter)

    def send(self, order: Order) -> Entry:
        entry = self.entries[order.tag] = Entry(order)
        return entry

    @property
    def accepted(self) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.job_id is not None]

    @property
    def drawn_again(self) -> int:
        """Pictures that were compared with an earlier drawing of the same request."""
        return sum(count - 1 for count in self._drawn.values())

    def find(self, wrong: Wrong, entry: Entry, detail: object = "") -> None:
        self.problems.append((wrong, f"{entry.job_id} ({entry.order.tag}) {detail}".strip()))

    def saw(self, entry: Entry, job: SeenJob) -> None:
        """Note a reading of the entry's job, wherever it came from."""
        sha256 = tuple(image.sha256 for image in job.data)
        if entry.ended is not None:
            self.readings_again += 1
            before = (entry.ended, entry.completed_at, entry.sha256)
            after = (job.status, job.completed_at, sha256)
            if before != after:
                self.find(Wrong.CHANGED, entry, f"{before} -> {after}")
        elif job.status in ENDED:
            entry.ended, entry.completed_at, entry.sha256 = job.status, job.completed_at, sha256
            entry.error_code = job.error.code if job.error else ""
            self._judge_end(entry, job)

    def saw_bytes(self, entry: Entry, index: int, data: bytes) -> None:
        self.downloads += 1
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 != entry.sha256[index]:
            self.find(Wrong.BYTES, entry, f"image {index}: {sha256} instead of {entry.sha256[index]}")

    def audit(self, listed: Iterable[SeenJob]) -> None:
        """Compare with every job that there is, once nothing is under way any more."""
        by_tag: dict[str, list[SeenJob]] = defaultdict(list)
        for job in listed:
            by_tag[job.metadata.get("tag", "")].append(job)
        for tag, jobs in by_tag.items():
            entry = self.entries.get(tag)
            if entry is None:
                self.problems.append((Wrong.UNKNOWN, f"{jobs[0].id} with tag {tag!r}"))
                continue
            if len(jobs) > 1:
                self.find(Wrong.DUPLICATE, entry, [job.id for job in jobs])
            if entry.job_id is None:
                entry.job_id = jobs[0].id
                self.late += 1
            for job in jobs:
                if job.id == entry.job_id:
                    self.saw(entry, job)
        for tag, entry in self.entries.items():
            if entry.job_id is not None and entry.job_id not in {job.id for job in by_tag[tag]}:
                self.find(Wrong.VANISHED, entry)
            if entry.job_id is not None and entry.ended is None:
                self.find(Wrong.LOST, entry)

    def _judge_end(self, entry: Entry, job: SeenJob) -> None:
        if job.status is Status.FAILED:
            self.find(Wrong.FAILED, entry, entry.error_code)
        if job.status is Status.CANCELED and not entry.cancel_asked:
            self.find(Wrong.CANCELED, entry)
        if job.status is Status.COMPLETED and entry.cancel_confirmed:
            self.find(Wrong.SHOWN, entry)
        if job.status is Status.COMPLETED and len(job.data) != entry.order.n:
            self.find(Wrong.BYTES, entry, f"{len(job.data)} images instead of {entry.order.n}")
        for image in job.data:
            key = (entry.order.model, entry.order.prompt, image.seed, entry.order.steps)
            self._drawn[key] += 1
            if self._pictures.setdefault(key, image.sha256) != image.sha256:
                self.find(Wrong.PICTURE, entry, f"{key}: {image.sha256} after {self._pictures[key]}")
