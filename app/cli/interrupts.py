"""Being told to stop: Ctrl-C, SIGTERM and SIGHUP all arrive as KeyboardInterrupt."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interrupts() -> Iterator[None]:
    """Within this, the first signal raises KeyboardInterrupt; after it, only another Ctrl-C does.

    A closing terminal or a service manager may well send SIGTERM and SIGHUP together, and means one stop, not two.
    A SIGHUP that is ignored (nohup) stays ignored. Main thread only.
    """
    told = False

    def tell(signum: int, frame: object) -> None:
        nonlocal told
        if signum == signal.SIGINT or not told:
            told = True
            raise KeyboardInterrupt

    before = {signum: signal.getsignal(signum) for signum in _SIGNALS}
    for signum, handler in before.items():
        if (signum, handler) != (signal.SIGHUP, signal.SIG_IGN):
            signal.signal(signum, tell)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
