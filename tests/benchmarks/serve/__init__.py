"""Open-loop load on Darkroom and on what one would use instead of it, on the bundled models."""
