"""The emulator as a process of its own, steered over HTTP: for tests across processes and for benchmarks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any, Literal, Self
from urllib.request import ProxyHandler, Request, build_opener

from tradovate_auth.testing.emulator._control import order_from_json, request_from_json
from tradovate_auth.testing.emulator._faults import Fault
from tradovate_auth.testing.emulator._limits import Captcha
from tradovate_auth.testing.emulator._records import Counts, OrderInfo, RequestInfo, SessionInfo
from tradovate_auth.testing.emulator._rules import Rules

_MODULE = "tradovate_auth.testing.emulator"
_ROOT = Path(__file__).resolve().parents[3]


class EmulatorProcess:
    """An emulator in a child process, with the controls of :class:`Emulator`; each is one HTTP call of a millisecond.

    The child ends with ``stop()``, and also when this process does, however it does. Its state ends with it.

    Args:
        rules: How it behaves.
        host: The address to listen on.
        port: 0 takes a free one, and keeps it over ``stop()`` and ``start()``.
        timeout: Seconds that one control call may take.
        overrides: Single rules.

    Raises:
        ValueError: A rule is unknown or has none of its values.
    """

    def __init__(
        self,
        rules: Rules | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        timeout: float = 10.0,
        **overrides: Any,
    ) -> None:
        self._rules = (rules or Rules()).changed(**overrides)
        self.host = host
        self.port = port
        self.pid = 0
        self._timeout = timeout
        self._child: subprocess.Popen[bytes] | None = None
        self._opener = build_opener(
            ProxyHandler({})
        )  # loopback never goes through a proxy of the environment

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The base URL that clients are given, ending in ``/v1``."""
        return f"{self.origin}/v1"

    @property
    def credentials(self) -> dict[str, Any]:
        """The default user's, as arguments for ``tradovate_auth.Credentials``; secrets included."""
        return dict(self._ask("credentials"))

    @property
    def counts(self) -> Counts:
        """A snapshot of what has happened."""
        return Counts(**self._ask("state")["counts"])

    @property
    def live_sessions(self) -> int:
        """How many sessions are alive."""
        return int(self._ask("state")["live_sessions"])

    @property
    def sessions(self) -> tuple[SessionInfo, ...]:
        """Snapshots of every session, the oldest first."""
        return tuple(SessionInfo(**each) for each in self._ask("sessions"))

    @property
    def requests(self) -> tuple[RequestInfo, ...]:
        """The last 10,000 requests. Header names are in title case."""
        return tuple(request_from_json(each) for each in self._ask("requests"))

    @property
    def orders(self) -> tuple[OrderInfo, ...]:
        """The last 10,000 orders that were placed."""
        return tuple(order_from_json(each) for each in self._ask("orders"))

    def add_user(self, name: str, password: str, **values: Any) -> dict[str, Any]:
        """As :meth:`Emulator.add_user`."""
        return dict(self._do("add-user", {"name": name, "password": password, **values}))

    def configure(self, **rules: Any) -> None:
        """As :meth:`Emulator.configure`; a bad rule is found here, before the child hears of it."""
        self._rules = self._rules.changed(**rules)
        self._do("configure", rules)

    def inject(self, fault: Fault) -> None:
        """As :meth:`Emulator.inject`."""
        self._do("inject", fault.to_json())

    def revoke(self, user: str | None = None) -> int:
        """As :meth:`Emulator.revoke`."""
        return int(self._do("revoke", {"user": user}))

    def foreign_login(self, user: str | None = None) -> str:
        """As :meth:`Emulator.foreign_login`."""
        return str(self._do("foreign-login", {"user": user}))

    def lock_out(self, status: int = 429, seconds: float | None = None) -> None:
        """As :meth:`Emulator.lock_out`."""
        self._do("lock-out", {"status": status, "seconds": seconds})

    def penalize(
        self,
        endpoint: Literal["login", "renewal"] = "login",
        *,
        seconds: float = 15.0,
        captcha: Captcha = None,
        times: int = 1,
        status: int = 200,
    ) -> None:
        """As :meth:`Emulator.penalize`."""
        values = {
            "endpoint": endpoint,
            "seconds": seconds,
            "captcha": captcha,
            "times": times,
            "status": status,
        }
        self._do("penalize", values)

    def forbid(self, path: str) -> None:
        """As :meth:`Emulator.forbid`."""
        self._do("forbid", {"path": path})

    def allow(self, path: str) -> None:
        """As :meth:`Emulator.allow`."""
        self._do("allow", {"path": path})

    def release(self) -> None:
        """As :meth:`Emulator.release`."""
        self._do("release", {})

    def reset(self) -> None:
        """As :meth:`Emulator.reset`."""
        self._do("reset", {})

    def start(self) -> None:
        """Starts the child and blocks until it listens, about a second. Nothing happens if it runs.

        Raises:
            RuntimeError: The child ended without listening; the text is what it wrote to stderr.
        """
        if self._child is not None:
            return
        rules = {each.name: getattr(self._rules, each.name) for each in fields(Rules)}
        paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
        where = ["--host", self.host, "--port", str(self.port), "--rules", json.dumps(rules, default=dict)]
        with TemporaryFile() as complaints:  # not a pipe: nobody reads it while the child runs
            child = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", _MODULE, *where, "--until-stdin-closes"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            )
            line = child.stdout.readline() if child.stdout is not None else b""
            if not line:
                child.communicate()
                complaints.seek(0)
                complaint = complaints.read().decode(errors="replace")
                raise RuntimeError(f"the emulator process did not start: {complaint[-2000:]}")
        told = json.loads(line)
        self._child = child
        self.pid = int(told["pid"])
        self.port = int(told["url"].rsplit(":", 1)[1].partition("/")[0])

    def stop(self) -> None:
        """Ends the child and blocks until it is gone; its state is lost, the port kept for the next start."""
        child, self._child = self._child, None
        if child is not None:
            child.terminate()
            child.communicate()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<EmulatorProcess {self.url if self._child else 'stopped'}>"

    def _ask(self, name: str) -> Any:
        return self._call(Request(f"{self.origin}/emulator/{name}"))  # noqa: S310

    def _do(self, name: str, values: Mapping[str, Any]) -> Any:
        body = json.dumps(values, default=dict).encode()
        return self._call(Request(f"{self.origin}/emulator/{name}", data=body, method="POST"))  # noqa: S310

    def _call(self, request: Request) -> Any:
        with self._opener.open(request, timeout=self._timeout) as answer:
            return json.load(answer)["result"]
