"""The recipe of the bundled models: `make tiny-models` retrains them from nothing."""
