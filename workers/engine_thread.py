"""The one thread on which tensors live: it admits between steps and steps while there is work."""

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workers.engine.engine import Engine
from workers.engine.report import Report
from workers.engine.request import DenoiseRequest


@dataclass(frozen=True, slots=True)
class _Abort:
    request_ids: Sequence[str]
    gone: Callable[[], None]


class EngineThread:
    """Runs an engine beside the event loop. `deliver` is called on this thread, with each report that says anything."""

    def __init__(self, engine: Engine, deliver: Callable[[Report], None], clock: Callable[[], float]) -> None:
        self._engine = engine
        self._deliver = deliver
        self._clock = clock
        self._inbox: queue.SimpleQueue[DenoiseRequest | _Abort | None] = queue.SimpleQueue()
        self._waiting: dict[str, DenoiseRequest] = {}
        self._busy_since_s: float | None = None
        self._ending = threading.Lock()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Stop after the step that is running, without finishing the requests; the last report saves them."""
        self._inbox.put(None)
        self._thread.join(timeout_s)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, requests: Sequence[DenoiseRequest]) -> None:
        for request in requests:
            self._inbox.put(request)

    def abort(self, request_ids: Sequence[str], gone: Callable[[], None]) -> None:
        """Let requests go at the next step boundary; then `gone` is called, on this thread, after the last report."""
        with self._ending:
            if not self._ended:
                self._inbox.put(_Abort(request_ids, gone))
                return
        gone()

    def busy_s(self) -> float:
        """Seconds that the work in hand (one step, or one admission) has taken so far; 0 when idle."""
        since_s = self._busy_since_s
        return 0.0 if since_s is None else self._clock() - since_s

    def _run(self) -> None:
        while self._take():
            self._busy_since_s = self._clock()
            if self._waiting:
                joining = self._engine.next_admissions(list(self._waiting.values()))
                for request in joining:
                    del self._waiting[request.id]
                self._report(self._engine.admit(joining))
                self._busy_since_s = self._clock()
            if len(self._engine):
                self._report(self._engine.step())
            self._busy_since_s = None
        self._report(self._engine.save())
        with self._ending:
            self._ended = True
        while not self._inbox.empty():
            message = self._inbox.get()
            if isinstance(message, _Abort):
                message.gone()

    def _take(self) -> bool:
        """Empty the inbox, waiting for something if there is nothing to do. False: stop."""
        idle = not self._waiting and not len(self._engine)
        while True:
            try:
                message = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if message is None:
                return False
            if isinstance(message, _Abort):
                for request_id in message.request_ids:
                    self._waiting.pop(request_id, None)
                    self._engine.abort(request_id)
                message.gone()
            else:
                self._waiting[message.id] = message
            idle = False

    def _report(self, report: Report) -> None:
        if report:
            self._deliver(report)
