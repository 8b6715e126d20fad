"""A finished picture's bytes."""

import hashlib

import structlog

from app.errors import GoneError
from app.jobs.schema import ImageFile
from app.jobs.store import ImageNotStoredError, ImageStore

log = structlog.get_logger()


async def read_picture(store: ImageStore, image: ImageFile) -> bytes:
    """Read the very bytes that the record tells of. Raises GoneError, or StoreError."""
    try:
        data = await store.get(image.path)
    except ImageNotStoredError:
        raise GoneError("image_gone", "the image is no longer stored") from None
    if hashlib.sha256(data).hexdigest() != image.sha256:
        # An ETag promises these very bytes to every cache, for a year.
        log.error("image_damaged", path=image.path)
        raise GoneError("image_gone", "the stored image is damaged")
    return data
