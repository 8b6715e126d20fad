"""Step-level continuous batching: knows no Redis, no HTTP, and no clock it was not given."""
