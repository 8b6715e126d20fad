"""Labels that stay few whatever clients ask for: each of their values is a time series for ever.

| label       | values                            | what                                               |
|-------------|-----------------------------------|----------------------------------------------------|
| size_bucket | 64 128 256 512 768 1024 1536 2048 | pixels: the side of a square, the nearest by ratio |
| rows        | 1 2 4 8 more                      | rows of a forward: the first that holds them       |

832x1216 has as many pixels as a square of 1006, so it is in 1024; three rows are in 4. The largest and the smallest
size also take what is beyond them. With all labels of three models set, a worker has 2,600 series.
"""

import math
from enum import StrEnum

SIZE_BUCKETS = (64, 128, 256, 512, 768, 1024, 1536, 2048)
ROWS_BUCKETS = (1, 2, 4, 8)
MORE_ROWS = "more"


class Waste(StrEnum):
    """Why denoising steps came to nothing. RESTARTED: the job is tried again, or handed back, without them."""

    CANCELED = "canceled"
    FAILED = "failed"
    FENCED = "fenced"
    RESTARTED = "restarted"


def size_bucket(height: int, width: int) -> str:
    side = math.sqrt(height * width)
    return str(min(SIZE_BUCKETS, key=lambda bucket: abs(math.log(side / bucket))))


def rows_bucket(rows: int) -> str:
    return next((str(bucket) for bucket in ROWS_BUCKETS if rows <= bucket), MORE_ROWS)
