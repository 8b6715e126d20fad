"""Looking at real processes, without psutil."""

import subprocess
import time
from collections.abc import Callable, Iterable


def alive(pid: int) -> bool:
    """Whether it runs. A zombie does not: a container's first process may never reap it."""
    return _table().get(pid, (0, "Z", ""))[1] not in "ZX"


def family(pid: int) -> dict[int, str]:
    """A process's descendants that run: pid -> command line."""
    table = _table()
    found: dict[int, str] = {}
    parents = {pid}
    while parents:
        born = {
            child: command for child, (parent, state, command) in table.items() if parent in parents and state != "Z"
        }
        found |= born
        parents = set(born)
    return found


def all_gone(pids: Iterable[int], within_s: float) -> bool:
    pids = list(pids)
    return wait_until(lambda: not any(alive(pid) for pid in pids), within_s)


def wait_until(condition: Callable[[], bool], within_s: float) -> bool:
    until_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > until_s:
            return False
        time.sleep(0.05)
    return True


def _table() -> dict[int, tuple[int, str, str]]:
    """pid -> parent, one letter of state, command line."""
    listing = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,state=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = (line.split(None, 3) for line in listing.splitlines())
    return {int(row[0]): (int(row[1]), row[2][0], row[3] if len(row) > 3 else "") for row in rows}
