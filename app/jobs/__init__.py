"""The contract between gateway and workers: jobs, their lifecycle on Redis, and their bytes."""
