"""Keys for tests."""

from app.access.key import KeyRecord, Role, digest, new_key
from app.access.key_store import KeyStore


async def make_key(store: KeyStore, tenant: str, *roles: Role, **changes: object) -> tuple[KeyRecord, str]:
    """Keep a key of this tenant; give its record, and the key as its owner has it."""
    key_id, secret, text = new_key()
    fields = {"id": key_id, "tenant": tenant, "sha256": digest(secret), "roles": frozenset(roles)}
    record = KeyRecord.model_validate(fields | changes)
    await store.create(record)
    return record, text
