"""The gateway: HTTP in, jobs on the queue, pictures out. Never imports torch or workers."""
