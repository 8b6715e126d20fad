"""The recipe of the bundled models is here; the weights that it makes are still to come."""

import pytest

from app.catalog.catalog import Catalog

needs_trained_weights = pytest.mark.skipif(
    Catalog.load()["tiny-sd3"].source.revision == "0-random", reason="the bundled weights are not trained yet"
)
