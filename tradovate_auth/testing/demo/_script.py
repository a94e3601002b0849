"""What the workers do next, and what came of it. Any thread."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Call", "Script", "Stack", "Worker", "order_name"]

_ORDER_EVERY: Final = 25
_PATIENCE: Final = 5.0


@dataclass
class Stack:
    """One HTTP library in one way of use: a row of the table."""

    name: str
    calls: int = 0
    failures: int = 0
    resends: int = 0
    slowest: float = 0.0
    """Seconds."""
    first_failure: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


@dataclass
class Call:
    """One call on its way; `resends` is for whoever makes it to fill in."""

    body: bytes | None
    """An order, or None for a question."""
    resends: int = 0


class Script:
    """Lets the workers work, gathers them for a moment, ends them."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.sent: list[str] = []
        self._workers: list[Worker] = []
        self._gathering = False

    def enlist(self, worker: "Worker") -> None:
        """Count on a worker."""
        self._workers.append(worker)

    def gather(self) -> None:
        """Wait until no worker has a call on its way; blocks for some milliseconds."""
        self._gathering = True
        deadline = time.monotonic() + _PATIENCE
        while not all(worker.parked for worker in self._workers) and time.monotonic() < deadline:
            time.sleep(0.001)

    def send_orders(self) -> None:
        """Let the workers go on, each with an order."""
        for worker in self._workers:
            worker.order_due = True
        self._gathering = False

    def may_call(self, worker: "Worker") -> bool:
        """Return whether a worker may make its next call now."""
        worker.parked = self._gathering
        return not worker.parked


class Worker:
    """A thread or a task that makes one call after another."""

    def __init__(self, stack: Stack, script: Script) -> None:
        self.parked = False
        self.order_due = False
        self._stack = stack
        self._script = script
        self._calls = 0
        script.enlist(self)

    def may_call(self) -> bool:
        """Return whether the next call may be made now; if not, ask again a little later."""
        return self._script.may_call(self)

    @contextlib.contextmanager
    def call(self) -> Iterator[Call]:
        """Give out the next call, and note what comes of it: an exception is a failure, and goes no further."""
        self._calls += 1
        call = Call(self._order() if self.order_due or self._calls % _ORDER_EVERY == 0 else None)
        started, failure = time.monotonic(), None
        try:
            yield call
        except Exception as error:  # noqa: BLE001  # whatever a library raises: it is a failed call
            failure = f"{type(error).__name__}: {error}"
        with self._stack.lock:
            self._stack.calls += 1
            self._stack.resends += call.resends
            self._stack.slowest = max(self._stack.slowest, time.monotonic() - started)
            if failure is not None:
                self._stack.failures += 1
                self._stack.first_failure = self._stack.first_failure or failure

    def _order(self) -> bytes:
        self.order_due = False
        name = f"{self._stack.name} {id(self)} {self._calls}"
        self._script.sent.append(name)
        return json.dumps({"clOrdId": name, "action": "Buy", "symbol": "MESZ5", "orderQty": 1}).encode()


def order_name(body: bytes) -> str:
    """Return the name under which an order was sent."""
    return str(json.loads(body)["clOrdId"])
