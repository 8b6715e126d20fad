"""What can go wrong with the queue.

QueueError
├── QueueUnavailableError   the server is away, loading, or cannot serve now
├── StorageFullError        the server is out of memory and takes no new work
├── QueueFullError          too many jobs wait for this model
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
    def __init__(self, lane: str, queued: int) -> None:
        super().__init__(f"{queued} jobs already wait for {lane}")
        self.lane = lane
        self.queued = queued


class JobNotFoundError(QueueError):
    pass


class UnreadableJobError(QueueError):
    pass
