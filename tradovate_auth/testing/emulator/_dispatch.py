"""The way of a request through the emulator: record, fault, decide, answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from email.utils import formatdate

from tradovate_auth.testing.emulator import _answers as answers
from tradovate_auth.testing.emulator import _auth as auth
from tradovate_auth.testing.emulator import _resources as resources
from tradovate_auth.testing.emulator._aiohttp import web
from tradovate_auth.testing.emulator._answers import HTML, JSON, PAGE, TEXT, Answer, json_answer
from tradovate_auth.testing.emulator._faults import Fault
from tradovate_auth.testing.emulator._names import BASE, LOGIN, RENEWAL, bearer, endpoint_name
from tradovate_auth.testing.emulator._records import RequestInfo
from tradovate_auth.testing.emulator._sockets import serve_socket
from tradovate_auth.testing.emulator._state import State, kind_of

BODY_LIMIT = 64 * 2**20
Control = Callable[[str, str, bytes], Awaitable[Answer]]


class BodyTooLargeError(Exception):
    """A request body above BODY_LIMIT."""


class Dispatcher:
    """The request handler of the aiohttp server. Lives on one loop; only its state is shared with other threads."""

    def __init__(self, state: State, control: Control) -> None:
        self._state = state
        self._control = control
        self._released = asyncio.Event()
        self._date = (0, "")

    def release(self) -> None:
        """Ends the waits of "hang" and "late" faults that are under way. On the loop's thread only."""
        self._released.set()
        self._released = asyncio.Event()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path.startswith("/emulator/"):
            answer = await self._control(request.method, path, await read_body(request))
            return await self._send(request, answer)
        state = self._state
        record = RequestInfo(
            request.method, path, request.rel_url.raw_query_string, request.headers, state.clock()
        )
        if path[:4].lower() != f"{BASE}/":
            state.arrive(record, "", None)
            answer = answers.not_found()
        else:
            name = endpoint_name(path)
            fault = state.arrive(record, name, kind_of(name))
            if name == "websocket" and fault is None:
                return await self._socket(request, record)
            try:
                answer = await self._answer(request, record, name, fault)
            except BodyTooLargeError:
                answer = Answer(413)
        record.status = answer.status if answer.cut is None else None
        return await self._send(request, answer)

    async def _answer(
        self, request: web.BaseRequest, record: RequestInfo, name: str, fault: Fault | None
    ) -> Answer:
        if fault is None:
            return await self._process(request, record, name)
        if fault.kind in ("drop_after", "truncate", "late"):
            answer = await self._process(request, record, name)
            if fault.kind == "late":
                await self._wait(fault.seconds)
                return answer
            return answer.halved() if fault.kind == "truncate" else answers.closed()
        record.body = await read_body(request)
        if fault.kind == "hang":
            await self._wait(fault.seconds)
            return answers.closed() if fault.then == "close" else await self._process(request, record, name)
        return _planned(fault)

    async def _process(self, request: web.BaseRequest, record: RequestInfo, name: str) -> Answer:
        if name == LOGIN:
            return await self._login(request, record)
        if name == RENEWAL:
            return await self._renew(request, record)
        return await self._call(request, record, name)

    async def _login(self, request: web.BaseRequest, record: RequestInfo) -> Answer:
        record.body = record.body or await read_body(request)
        if request.method != "POST":
            return answers.not_found()
        await _pause(self._state.rules.login_delay)
        return auth.login(
            self._state, record.body, request.headers.get("Content-Type", ""), self._address(request)
        )

    async def _renew(self, request: web.BaseRequest, record: RequestInfo) -> Answer:
        record.body = record.body or await read_body(request)
        if request.method not in ("GET", "POST"):
            return answers.not_found()
        rules = self._state.rules
        await _pause(rules.renewal_delay)
        if rules.wrong_host_renewals:
            answer = resources.wrong_host(request.host, request.path_qs, self._state)
            if answer is not None:
                return answer
        token = bearer(request.headers.get("Authorization"))
        return auth.renew(self._state, token, self._address(request), record.query.get("p-ticket"))

    async def _call(self, request: web.BaseRequest, record: RequestInfo, name: str) -> Answer:
        state = self._state
        early = state.rules.early_401
        body = record.body
        if not early and not body and request.body_exists:
            body = await read_body(request)
        answer = resources.wrong_host(request.host, request.path_qs, state)
        if answer is not None:
            return answer
        if resources.is_open(name, record):
            return resources.redirect(record)
        session = state.admit(bearer(request.headers.get("Authorization")), name, self._address(request))
        if isinstance(session, Answer):
            return session
        if early and not body:
            body = await read_body(request)
        if state.rules.call_delay:
            await asyncio.sleep(state.rules.call_delay)
        answer = await resources.serve(resources.Call(state, record, body, session), name)
        if answer.status < 400:
            state.count("calls_ok")
        return answer

    async def _socket(self, request: web.BaseRequest, record: RequestInfo) -> web.StreamResponse:
        wrong = resources.wrong_host(request.host, request.path_qs, self._state)
        if wrong is not None or "Upgrade" not in request.headers:
            # Sockets are turned away with 421 whatever ordinary calls get (P§1.2).
            record.status = 400 if wrong is None else 421
            return await self._send(request, Answer(record.status))
        record.status = 101
        return await serve_socket(request, self._state, self._wait)

    def _address(self, request: web.BaseRequest) -> str:
        return request.headers.get(self._state.rules.ip_header) or request.remote or ""

    async def _wait(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._released.wait(), seconds)

    def _date_text(self) -> str:
        state = self._state
        second = int(state.clock() + state.rules.clock_offset)
        if second != self._date[0]:
            self._date = (second, formatdate(second, usegmt=True))
        return self._date[1]

    async def _send(self, request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
        if answer.cut is not None or not self._state.rules.send_date:
            return self._send_raw(request, answer)
        headers = {"Date": self._date_text(), **answer.headers}
        if answer.content_type is not None:
            headers["Content-Type"] = answer.content_type
        if not answer.chunks:
            return web.Response(status=answer.status, body=answer.body, headers=headers)
        response = web.StreamResponse(status=answer.status, headers=headers)
        response.enable_chunked_encoding()
        await response.prepare(request)
        for _ in range(answer.chunks):
            await response.write(answer.body)
            await _pause(answer.pause)
        return response

    def _send_raw(self, request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
        """Writes past aiohttp, which sends whole answers with a Date only, and closes; what it adds then goes nowhere."""
        if request.transport is not None:
            date = self._date_text() if self._state.rules.send_date else None
            request.transport.write(answer.raw(date)[: answer.cut])
            request.transport.close()
        return web.Response()


async def read_body(request: web.BaseRequest) -> bytes:
    """The whole body, b"" if there is none.

    Raises:
        BodyTooLargeError: It is longer than BODY_LIMIT.
    """
    if not request.body_exists:
        return b""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    parts: list[bytes] = []
    length = 0
    async for part in request.content.iter_any():
        length += len(part)
        if length > BODY_LIMIT:
            raise BodyTooLargeError
        parts.append(part)
    return b"".join(parts)


async def _pause(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)


def _planned(fault: Fault) -> Answer:
    """What a fault answers in place of the server."""
    if fault.kind == "drop":
        return answers.closed()
    if fault.kind == "html":
        return Answer(fault.status or 200, PAGE, HTML, fault.headers)
    if fault.kind == "json":
        return json_answer(fault.payload, fault.status or 200, fault.headers)
    payload = fault.payload if fault.payload is not None else b""
    if isinstance(payload, (bytes, str)):
        body = payload.encode() if isinstance(payload, str) else payload
        return Answer(fault.status or 200, body, TEXT if body else None, fault.headers)
    return Answer(fault.status or 200, json_answer(payload).body, JSON, fault.headers)
