"""The controls over HTTP, outside ``/v1``, for an emulator in another process: JSON in, JSON out, no token needed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from tradovate_auth.testing.emulator._answers import Answer, json_answer, not_found
from tradovate_auth.testing.emulator._controls import Controls
from tradovate_auth.testing.emulator._faults import Fault
from tradovate_auth.testing.emulator._records import OrderInfo, RequestInfo

Arguments = Mapping[str, Any]


class ControlPoint:
    """Answers requests under ``/emulator/``: GET reads, POST does."""

    def __init__(self, controls: Controls, release: Callable[[], None]) -> None:
        self._controls = controls
        self._release = release

    async def __call__(self, method: str, path: str, body: bytes) -> Answer:
        """The answer to one control request; 400 names what was wrong with its arguments."""
        name = path.removeprefix("/emulator/").strip("/")
        table = {"GET": _READ, "POST": _DO}.get(method, {})
        if method == "POST" and name == "release":
            self._release()
            return json_answer({"result": None})
        if name not in table:
            return not_found()
        try:
            arguments = json.loads(body) if body else {}
            return json_answer({"result": table[name](self._controls, arguments)})
        except (TypeError, ValueError, KeyError) as error:
            return json_answer({"error": f"{type(error).__name__}: {error}"}, 400)


def _state(controls: Controls, _: Arguments) -> Any:
    return {
        "counts": asdict(controls.counts),
        "live_sessions": controls.live_sessions,
        "orders": controls.counts.orders,
    }


def _sessions(controls: Controls, _: Arguments) -> Any:
    return [asdict(each) for each in controls.sessions]


def _requests(controls: Controls, _: Arguments) -> Any:
    return [request_to_json(each) for each in controls.requests]


def _orders(controls: Controls, _: Arguments) -> Any:
    return [asdict(each) | {"body": base64.b64encode(each.body).decode()} for each in controls.orders]


def _configure(controls: Controls, arguments: Arguments) -> None:
    controls.configure(**arguments)


def request_to_json(request: RequestInfo) -> dict[str, Any]:
    """A recorded request as plain JSON values, header values included."""
    values = {name: getattr(request, name) for name in RequestInfo.__slots__}
    return values | {
        "headers": list(request.headers.items()),
        "body": base64.b64encode(request.body).decode(),
    }


def request_from_json(values: Mapping[str, Any]) -> RequestInfo:
    """The request that :func:`request_to_json` described; its headers are looked up by their usual spelling."""
    headers = {name.title(): value for name, value in values["headers"]}
    request = RequestInfo(
        values["method"], values["path"], values["query_string"], headers, values["received_at"]
    )
    request.status = values["status"]
    request.body = base64.b64decode(values["body"])
    return request


def order_from_json(values: Mapping[str, Any]) -> OrderInfo:
    """An order as the control endpoint describes it."""
    return OrderInfo(**{**values, "body": base64.b64decode(values["body"])})


_READ: Mapping[str, Callable[[Controls, Arguments], Any]] = {
    "state": _state,
    "sessions": _sessions,
    "requests": _requests,
    "orders": _orders,
    "credentials": lambda controls, _: controls.credentials,
}
_DO: Mapping[str, Callable[[Controls, Arguments], Any]] = {
    "add-user": lambda controls, arguments: controls.add_user(**arguments),
    "configure": _configure,
    "inject": lambda controls, arguments: controls.inject(Fault.from_json(arguments)),
    "revoke": lambda controls, arguments: controls.revoke(**arguments),
    "foreign-login": lambda controls, arguments: controls.foreign_login(**arguments),
    "lock-out": lambda controls, arguments: controls.lock_out(**arguments),
    "penalize": lambda controls, arguments: controls.penalize(**arguments),
    "forbid": lambda controls, arguments: controls.forbid(**arguments),
    "allow": lambda controls, arguments: controls.allow(**arguments),
    "reset": lambda controls, _: controls.reset(),
}
