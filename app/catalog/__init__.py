"""The models this system knows. Torch-free: both sides of the queue read it."""
