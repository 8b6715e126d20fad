"""When a request will be done, as it looks when it joins. Pure Python on plain data.

The estimate is of everybody in flight taking turns: in each round every group of like requests takes one step together,
and who has no steps left is decoded and leaves. The scheduler does better than turns by some and worse by others, and
nobody knows who will join later; how far off the estimate was is measured (`darkroom_job_eta_error_ratio`).
"""

from collections.abc import Sequence

from workers.engine.cost import CostModel, Shape, Stage
from workers.engine.scheduler import Schedulable


def seconds_in_turns(request: Schedulable, in_flight: Sequence[Schedulable], cost: CostModel) -> float:
    """Seconds until `request`, one of `in_flight`, has its pixels."""
    rounds = request.remaining_steps
    # Who leaves before it is decoded before it.
    leaving = [other for other in in_flight if other.remaining_steps <= rounds]
    seconds = sum(cost.seconds(Stage.VAE_DECODE, other.key, 1) for other in leaving)
    groups: dict[Shape, list[Schedulable]] = {}
    for other in in_flight:
        groups.setdefault(other.key, []).append(other)
    for key, group in groups.items():
        curve = cost.curve(Stage.DENOISE, key)
        step = 0
        # The batch is the same until the next of the group leaves.
        for until in sorted({min(other.remaining_steps, rounds) for other in group}):
            rows = sum(other.rows for other in group if other.remaining_steps > step)
            full, rest = divmod(rows, cost.max_rows)
            seconds += (until - step) * (full * curve[cost.max_rows] + curve[rest])
            step = until
    return seconds
