"""The emulator as a thread of this process: start, stop, start again on the same port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from tradovate_auth.testing.emulator._aiohttp import web
from tradovate_auth.testing.emulator._control import ControlPoint
from tradovate_auth.testing.emulator._controls import Controls
from tradovate_auth.testing.emulator._dispatch import Dispatcher
from tradovate_auth.testing.emulator._names import BASE
from tradovate_auth.testing.emulator._rules import Rules

_BACKLOG = 1024


class Emulator(Controls):
    """An auth server to test against: plain HTTP on loopback, served by a daemon thread of this process.

    Args:
        rules: How it behaves; the defaults are those of the sources.
        clock: Seconds since the epoch. Lifetimes, limits and the Date header go by it, delays by real time.
        host: The address to listen on.
        port: 0 takes a free one, and keeps it over ``stop()`` and ``start()``.
        aliases: Further addresses to listen on, under the same port; for tests of assigned hosts.
        overrides: Single rules, as ``Emulator(lifetime=6.0)``.

    Raises:
        ValueError: A rule is unknown or has none of its values, or the port is none.
    """

    def __init__(
        self,
        rules: Rules | None = None,
        *,
        clock: Callable[[], float] = time.time,
        host: str = "127.0.0.1",
        port: int = 0,
        aliases: tuple[str, ...] = (),
        **overrides: Any,
    ) -> None:
        if port not in range(65_536):
            raise ValueError(f"a port is 0 to 65535, not {port}")
        super().__init__((rules or Rules()).changed(**overrides), clock)
        self.host = host
        self._aliases = aliases
        self._port = port
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._dispatcher: Dispatcher | None = None
        self._stopping: asyncio.Event | None = None

    @property
    def port(self) -> int:
        """The port; 0 before the first start if none was asked for."""
        return self._port

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://{self.host}:{self._port}"

    @property
    def url(self) -> str:
        """The base URL that clients are given, ending in ``/v1``."""
        return f"{self.origin}{BASE}"

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._thread is not None

    def start(self) -> None:
        """Listens; blocks until it does, some milliseconds. Nothing happens if it does already.

        Raises:
            OSError: The address cannot be had.
        """
        if self._thread is not None:
            return
        listening = self._listen()
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listening, ready)), name="emulator", daemon=True
        )
        self._thread.start()
        ready.wait()

    def _listen(self) -> list[socket.socket]:
        with contextlib.ExitStack() as undo:
            listening: list[socket.socket] = []
            port = self._port
            for host in (self.host, *self._aliases):
                listening.append(undo.enter_context(socket.create_server((host, port), backlog=_BACKLOG)))
                port = listening[0].getsockname()[1]
            undo.pop_all()
        self._port = port
        return listening

    def stop(self) -> None:
        """Closes port and connections, requests under way without an answer; blocks until done. Keeps the state."""
        thread, self._thread = self._thread, None
        if thread is None or self._loop is None or self._stopping is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join()
        self._loop = None

    def release(self) -> None:
        """Lets requests go on that "hang" and "late" faults hold at this moment; does not block."""
        loop, dispatcher = self._loop, self._dispatcher
        if loop is not None and dispatcher is not None:
            loop.call_soon_threadsafe(dispatcher.release)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        where = self.url if self.running else "stopped"
        return f"<Emulator {where}, {self.live_sessions} live sessions>"

    async def _serve(self, listening: list[socket.socket], ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._dispatcher = Dispatcher(self._state, ControlPoint(self, self.release))
        runner = web.ServerRunner(web.Server(self._dispatcher, access_log=None), shutdown_timeout=0.01)
        await runner.setup()
        for each in listening:
            await web.SockSite(runner, each, backlog=_BACKLOG).start()
        ready.set()
        await self._stopping.wait()
        for each in listening:
            # A forked child may hold a copy of the socket, in which closing ours would not end the listening.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        await runner.cleanup()
