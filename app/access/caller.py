"""Who asks, and what he may."""

from dataclasses import dataclass

from app.access.key import DEFAULT_TENANT, KeyRecord, Role
from app.jobs.schema import Priority

_RANK = {Priority.LOW: 0, Priority.NORMAL: 1, Priority.HIGH: 2}


@dataclass(frozen=True, slots=True)
class Caller:
    """key_id: None where nobody is asked for a key. Limits that are None are the server's own."""

    tenant: str
    roles: frozenset[Role]
    key_id: str | None
    max_priority: Priority = Priority.HIGH
    requests_per_minute: int | None = None
    megapixel_steps_per_hour: int | None = None

    def may(self, role: Role) -> bool:
        return role in self.roles or Role.ADMIN in self.roles

    def may_ask_for(self, priority: Priority) -> bool:
        return _RANK[priority] <= _RANK[self.max_priority]


def anybody() -> Caller:
    """Whoever reaches a server that asks for no key: it is his own."""
    return Caller(tenant=DEFAULT_TENANT, roles=frozenset(Role), key_id=None)


def holder(record: KeyRecord) -> Caller:
    """Whoever showed this key."""
    return Caller(
        tenant=record.tenant,
        roles=record.roles,
        key_id=record.id,
        max_priority=record.max_priority,
        requests_per_minute=record.requests_per_minute,
        megapixel_steps_per_hour=record.megapixel_steps_per_hour,
    )
