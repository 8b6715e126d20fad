"""Pictures that clients got, compared."""

import io

import numpy as np
from PIL import Image


def difference(first: bytes, second: bytes) -> float:
    """Mean absolute difference, of 255. A smaller picture, as previews are, is scaled up."""
    with Image.open(io.BytesIO(first)) as one, Image.open(io.BytesIO(second)) as other:
        scaled = one.convert("RGB").resize(other.size)
        return float(np.abs(np.asarray(scaled, float) - np.asarray(other.convert("RGB"), float)).mean())


def same(first: bytes, second: bytes) -> bool:
    """Whether they are one picture: in other company it is rounded differently, by 1 of 255 here and there."""
    return difference(first, second) < 0.5
