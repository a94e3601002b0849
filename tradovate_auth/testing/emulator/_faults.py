"""Faults that a test plans for requests to come: which request they meet and what happens to it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from tradovate_auth.testing.emulator._names import AUTHORIZE, LOGIN, RENEWAL, endpoint_name

Kind = Literal["drop", "drop_after", "truncate", "html", "hang", "late", "status", "json", "body"]


@dataclass(frozen=True)
class Fault:
    """One planned fault. Faults are tried in the order of their injection, and at most one meets a request.

    Attributes:
        endpoint: "login", "renewal", a path below ``/v1`` such as "/account/list", "calls" for every ordinary
            endpoint, or "*" for all; or "authorize", the frame of a WebSocket, which neither of those two means.
        kind: "drop" closes the connection unprocessed; "drop_after" processes the request, so a login opens its
            session and an order is placed, and closes without an answer (P§9.37); "truncate" sends half of the
            body under the whole one's length; "html" answers 200 with a page; "hang" waits before it processes,
            "late" after; "status" answers ``status``, ``headers`` and ``payload`` unprocessed; "json" and "body"
            answer ``payload`` as JSON or as raw bytes, under ``status`` or 200. A frame's "status" and "json" answer
            an item with ``payload`` as its ``d``; its "body" and "html" are the text of a message.
        times: How many requests it meets; None means every one until ``reset()``.
        skip: Matching requests that pass before the first one is met.
        seconds: Of "hang" and "late", by the real clock. None waits until ``release()`` or the end of the server.
        then: After a "hang", whether to "continue" with processing or to "close".
        status: Of "status", "json" and "body".
        headers: Added to the answer of "html", "status", "json" and "body".
        payload: The body: any JSON value for "json"; bytes or text otherwise.

    Raises:
        ValueError: The kind is unknown.
    """

    endpoint: str
    kind: Kind
    times: int | None = 1
    skip: int = 0
    seconds: float | None = None
    then: Literal["continue", "close"] = "continue"
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    payload: Any = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"a fault is one of {get_args(Kind)}, not {self.kind!r}")

    def to_json(self) -> dict[str, Any]:
        """The fault as plain JSON values, for the control endpoint; bytes travel in base 64."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__} | {
            "headers": dict(self.headers)
        }
        if isinstance(self.payload, bytes):
            values["payload"] = {"base64": base64.b64encode(self.payload).decode()}
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Fault:
        """The fault that :meth:`to_json` described.

        Raises:
            TypeError: A value has an unknown name, or endpoint or kind is missing.
        """
        payload = values.get("payload")
        if isinstance(payload, dict) and set(payload) == {"base64"}:
            return cls(**{**values, "payload": base64.b64decode(payload["base64"])})
        return cls(**values)


@dataclass
class _Planned:
    fault: Fault
    name: str
    skip: int
    left: int | None

    def meets(self, name: str) -> bool:
        if name == AUTHORIZE:
            return self.name == name
        if self.name == "calls":
            return name not in (LOGIN, RENEWAL)
        return self.name in ("*", name)


class FaultQueue:
    """The faults that are still to come. Not thread-safe: its owner locks."""

    def __init__(self) -> None:
        self._planned: list[_Planned] = []

    def __len__(self) -> int:
        return len(self._planned)

    def add(self, fault: Fault) -> None:
        """Plans one more, behind the others."""
        self._planned.append(_Planned(fault, endpoint_name(fault.endpoint), fault.skip, fault.times))

    def take(self, name: str) -> Fault | None:
        """The fault that meets this request, used up by one; ``name`` is an :func:`endpoint_name`."""
        for planned in self._planned:
            if not planned.meets(name):
                continue
            if planned.skip:
                planned.skip -= 1
                continue
            if planned.left is not None:
                planned.left -= 1
                if planned.left <= 0:
                    self._planned.remove(planned)
            return planned.fault
        return None
