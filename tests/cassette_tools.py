"""What keeps secrets off the cassettes, and what plays one to aiohttp: see cassettes/README.md.

vcrpy works below requests and httpx, so what an adapter adds is on a cassette and its code runs when one is played. For aiohttp
it replaces the whole session, and no middleware runs. So its own patcher is left out, and `CassetteMiddleware` takes its place
as the innermost middleware, behind the adapter's.
"""

import json
import re
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from vcr.cassette import Cassette
from vcr.errors import CannotOverwriteExistingCassetteException
from vcr.request import Request
from vcr.serialize import deserialize
from vcr.serializers import yamlserializer
from vcr.stubs.aiohttp_stubs import MockStream

__all__ = [
    "ORIGIN",
    "PORT",
    "SCRUBBED",
    "CassetteMiddleware",
    "matching",
    "scrub_request",
    "scrub_response",
    "secrets_in",
]

ORIGIN: Final = "http://emulator.invalid"
"""What the cassettes name in place of the emulator's address."""
PORT: Final = 8080
"""What stands for the emulator's port where an answer names one."""
SCRUBBED: Final = "SCRUBBED"

_SECRET_FIELDS: Final = frozenset({"password", "sec", "accessToken", "mdAccessToken", "p-ticket"})
_SECRET_HEADERS: Final = frozenset({"authorization", "cookie", "set-cookie", "proxy-authorization"})
_ORIGIN = re.compile(r"^https?://[^/]+")
_LOOPBACK = re.compile(r"(?<=//)(127\.\d+\.\d+\.\d+):\d+")
_TOKEN_SHAPED = re.compile(r"[A-Za-z0-9_.~+=-]{40,}")


def matching() -> dict[str, Any]:
    """Return how recordings are made and found: by what the server reads, without a secret."""
    return {
        "match_on": ["method", "path", "query", "body"],
        "before_record_request": scrub_request,
        "before_record_response": scrub_response,
        "decode_compressed_response": True,
    }


def scrub_request(request: Any) -> Any:
    """Return a recorded request without its secrets, with one address for every recording."""
    request.uri = _ORIGIN.sub(ORIGIN, request.uri)
    # As parsed and sorted, so that one recording matches every library's way of writing JSON, or no body at all.
    request.body = _json(request.body, sort_keys=True) if request.body else None
    for name in list(request.headers):
        if name.lower() == "authorization":
            request.headers[name] = f"Bearer {SCRUBBED}"
        elif name.lower() in _SECRET_HEADERS:
            del request.headers[name]
        elif name.lower() == "host":
            request.headers[name] = ORIGIN.removeprefix("http://")
    return request


def scrub_response(response: dict[str, Any]) -> dict[str, Any]:
    """Return a recorded answer without its secrets."""
    body = _json(response["body"]["string"])
    headers = {
        name: values for name, values in response["headers"].items() if name.lower() not in _SECRET_HEADERS
    }
    for name, values in headers.items():
        if name.lower() == "content-length":
            headers[name] = [str(len(body))]
        elif name.lower() == "location":
            texts = [values] if isinstance(values, str) else values
            headers[name] = [_LOOPBACK.sub(rf"\1:{PORT}", text) for text in texts]
    return {**response, "headers": headers, "body": {"string": body}}


def _json(body: bytes, **options: Any) -> bytes:
    """Return a body without its secrets if it is JSON, whatever its content type says; else the body."""
    try:
        return json.dumps(_scrubbed(json.loads(body)), **options).encode()
    except ValueError:
        return body


def _scrubbed(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: SCRUBBED if name in _SECRET_FIELDS and inner else _scrubbed(inner)
            for name, inner in value.items()
        }
    return [_scrubbed(inner) for inner in value] if isinstance(value, list) else value


def secrets_in(text: str) -> list[str]:
    """Return what a cassette holds that no cassette may hold: where it stands, or what it looks like."""
    found = [f"token-shaped: {match[:4]}..." for match in _TOKEN_SHAPED.findall(text)]
    requests, responses = deserialize(text, yamlserializer)
    for request in requests:
        found += _named(request.headers, request.body)
    for response in responses:
        found += _named(response["headers"], response["body"]["string"])
    return found


def _named(headers: Any, body: bytes | None) -> list[str]:
    found = [
        f"header {name}"
        for name, value in headers.items()
        if name.lower() in _SECRET_HEADERS and value not in (f"Bearer {SCRUBBED}", [f"Bearer {SCRUBBED}"])
    ]
    try:
        answer = json.loads(body or b"")
    except ValueError:
        return found
    return found + list(_fields(answer))


def _fields(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [
            f"field {name}"
            for name, inner in value.items()
            if name in _SECRET_FIELDS and inner not in (SCRUBBED, "", None)
        ]
        return own + [found for inner in value.values() for found in _fields(inner)]
    return [found for inner in value for found in _fields(inner)] if isinstance(value, list) else []


class CassetteMiddleware:
    """Plays a cassette to an aiohttp session, or records it, behind all other middlewares.

    Args:
        cassette: As pytest-recording's `vcr` fixture has it, under a configuration that skips the patcher for aiohttp.
    """

    def __init__(self, cassette: Cassette) -> None:
        self._cassette = cassette

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Answer from the cassette if it can; else send, and write down. aiohttp calls this."""
        body = await request.body.as_bytes() if isinstance(request.body, aiohttp.Payload) else request.body
        asked = Request(
            request.method,
            str(request.url),
            body or None,
            {str(name): value for name, value in request.headers.items()},
        )
        if self._cassette.can_play_response_for(asked):
            return await _played(request, self._cassette.play_response(asked))
        if self._cassette.write_protected:
            raise CannotOverwriteExistingCassetteException(cassette=self._cassette, failed_request=asked)
        response = await handler(request)
        answer = {
            "status": {"code": response.status, "message": response.reason},
            "headers": {str(name): response.headers.getall(name) for name in response.headers},
            "body": {"string": await response.read()},
        }
        self._cassette.append(asked, answer)
        return response


async def _played(request: aiohttp.ClientRequest, recorded: dict[str, Any]) -> aiohttp.ClientResponse:
    """Return a recorded answer as the session would have read it from a connection."""
    response = aiohttp.ClientResponse(
        request.method,
        request.url,
        writer=None,
        continue100=None,
        timer=None,  # type: ignore[arg-type]  # nothing is waited for
        request_info=request.request_info,
        traces=[],
        loop=request.loop,
        session=request.session,
        stream_writer=SimpleNamespace(output_size=0),  # type: ignore[arg-type]  # nothing was sent
    )
    headers = CIMultiDict((name, value) for name, values in recorded["headers"].items() for value in values)
    response.status = recorded["status"]["code"]
    response.reason = recorded["status"]["message"]
    response._headers = CIMultiDictProxy(headers)
    response._raw_headers = tuple((name.encode(), value.encode()) for name, value in headers.items())
    response._closed = True  # there is no connection to give back
    response.content = MockStream(recorded["body"]["string"])
    return response
