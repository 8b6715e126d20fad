"""What can go wrong with the queue.

QueueError
├── QueueUnavailableError   the server is away, loading, or cannot serve now
├── StorageFullError        the server is out of memory and takes no new work
├── QueueFullError          too many jobs wait for this model
├── TenantFullError         too many jobs of this tenant are open
├── KeyReusedError          an idempotency key that came with another request before
├── JobNotFoundError        no such job, or another tenant's
└── UnreadableJobError      another version of Darkroom wrote it
"""


class QueueError(Exception):
    """Base of everything that JobQueue raises."""


class QueueUnavailableError(QueueError):
    pass


class StorageFullError(QueueError):
    pass


class QueueFullError(QueueError):
    """retry_after_s: when a place should be free, the others who were refused being served before."""

    def __init__(self, lane: str, queued: int, retry_after_s: float) -> None:
        super().__init__(f"{queued} jobs already wait for {lane}")
        self.retry_after_s = retry_after_s


class TenantFullError(QueueError):
    """retry_after_s: when one of its jobs should be over."""

    def __init__(self, open_jobs: int, retry_after_s: float) -> None:
        super().__init__(f"{open_jobs} of your jobs are not over yet")
        self.retry_after_s = retry_after_s


class KeyReusedError(QueueError):
    pass


class JobNotFoundError(QueueError):
    pass


class UnreadableJobError(QueueError):
    pass
