"""The replay table: what is sent again after a 401, and what never is.

Each body is sent twice with a fresh token's answer as the reference: once plainly, once through a 401. What the server gets
must be the same to the byte; what cannot be sent again whole is not sent again at all.
"""

import re

import pytest
from stacks import (
    AIOHTTP,
    ALL,
    HTTPX,
    HTTPX2,
    HTTPX2_ASYNC,
    HTTPX_ASYNC,
    REQUESTS,
    Body,
    Stack,
    every_stack,
    plain_environment,
    tradovate_provider,
)

from tradovate_auth import TokenProvider
from tradovate_auth.testing.emulator import Emulator, Fault, OrderInfo

__all__ = ["plain_environment", "tradovate_provider"]  # fixtures

WHOLE = ("json", "bytes", "text", "form", "multipart", "multipart-file", "file", "bytesio")
_HTTPX_LIKE = tuple(each for each in ALL if each not in (REQUESTS, AIOHTTP))
ONCE = (
    *((stack, "generator") for stack in ALL),
    # requests has read the whole of a multipart before it is sent; the others read its fields while sending.
    *((stack, "multipart-pipe") for stack in ALL if stack is not REQUESTS),
    *((stack, "pipe") for stack in (REQUESTS, HTTPX, HTTPX2, AIOHTTP)),
)


def order_url(emulator: Emulator) -> str:
    """Where orders are placed."""
    return f"{emulator.url}/order/placeorder"


def content(order: OrderInfo) -> bytes:
    """An order's body, without what is random in it."""
    boundary = re.search(r"boundary=(\S+)", order.content_type or "")
    return order.body.replace(boundary[1].encode(), b"BOUNDARY") if boundary else order.body


@every_stack
@pytest.mark.parametrize("kind", WHOLE)
def test_whole_bodies_are_sent_again(
    stack: Stack, kind: str, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """After a 401 the server gets exactly one order, with the very bytes of one that met no 401."""
    url = order_url(tradovate_emulator)
    with stack.client(stack.auth(tradovate_provider)) as client:
        assert client.post(url, Body(kind)).status == 200
        tradovate_emulator.revoke()
        answer = client.post(url, Body(kind))
    plain, again = tradovate_emulator.orders
    assert (answer.status, tradovate_emulator.counts.calls_unauthorized) == (200, 1)
    assert content(again) == content(plain)
    if kind in ("bytes", "text", "file", "bytesio"):
        assert again.body == Body(kind).payload
    else:
        assert b"ESZ6" in again.body


@pytest.mark.parametrize(("stack", "kind"), ONCE, ids=str)
def test_one_shot_bodies_are_never_sent_again(
    stack: Stack, kind: str, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """What can be read once only gets its 401; no empty or half order is placed, and the next call is good."""
    url = order_url(tradovate_emulator)
    with stack.client(stack.auth(tradovate_provider)) as client:
        assert client.post(url, Body(kind)).status == 200
        tradovate_emulator.revoke()
        answer = client.post(url, Body(kind))
        assert (answer.status, b"Unauthorized" in answer.body) == (401, True)
        assert tradovate_emulator.counts.orders == 1
        assert client.post(url, Body(kind)).status == 200
    first, second = tradovate_emulator.orders
    assert content(first) == content(second)
    assert b"ESZ6" in second.body
    assert tradovate_emulator.counts.calls_unauthorized == 1
    if kind == "pipe":  # streamed, not read ahead: nobody knows how much will come out of it
        assert tradovate_emulator.requests[-1].headers["Transfer-Encoding"] == "chunked"


@pytest.mark.parametrize("stack", _HTTPX_LIKE, ids=str)
def test_httpx_resends_up_to_its_limit(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """In httpx a body of exactly `resend_limit` bytes is sent again; of one byte more, the 401 comes back."""
    url = order_url(tradovate_emulator)
    with stack.client(stack.auth(tradovate_provider)) as client:
        assert client.post(url, Body("multipart-file")).status == 200
    length = len(tradovate_emulator.orders[0].body)
    for limit, status in ((length, 200), (length - 1, 401)):
        tradovate_emulator.inject(Fault("/order/placeorder", "status", status=401))
        with stack.client(stack.auth(tradovate_provider, resend_limit=limit)) as client:
            assert client.post(url, Body("multipart-file")).status == status
    assert [len(order.body) for order in tradovate_emulator.orders] == [length, length]


def test_a_longer_file_is_streamed_and_not_sent_again(
    tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A file above the limit goes out from its offset without being held in memory, and its 401 is the answer."""
    url = order_url(tradovate_emulator)
    with HTTPX2.client(HTTPX2.auth(tradovate_provider, resend_limit=10)) as client:
        assert client.post(url, Body("file")).status == 200
        tradovate_emulator.revoke()
        assert client.post(url, Body("file")).status == 401
        assert client.post(url, Body("file")).status == 200
    assert [order.body for order in tradovate_emulator.orders] == [Body("file").payload] * 2


@pytest.mark.parametrize(
    ("stack", "kind", "text"),
    [
        # It announces the whole file, also for one that is handed over at an offset.
        (HTTPX, "file", "Too little data for declared Content-Length"),
        (HTTPX_ASYNC, "file", "sync request with an AsyncClient"),
        (HTTPX2_ASYNC, "pipe", "sync request with an AsyncClient"),
    ],
    ids=str,
)
def test_what_httpx_cannot_send_fails_as_without_us(
    stack: Stack,
    kind: str,
    text: str,
    tradovate_emulator: Emulator,
    tradovate_provider: TokenProvider,
) -> None:
    """Where httpx itself fails on a body, its own error comes out with our auth too; the next call is good."""
    url = order_url(tradovate_emulator)
    for auth in (None, stack.auth(tradovate_provider, resend_limit=10)):
        with stack.client(auth) as client:
            with pytest.raises(Exception, match=text):
                client.post(url, Body(kind))
            assert client.post(url, Body("json")).status == (404 if auth is None else 200)
    assert tradovate_emulator.counts.orders == 1


@pytest.mark.parametrize("stack", [each for each in ALL if each is not HTTPX2_ASYNC], ids=str)
def test_an_empty_file_is_an_empty_body(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A file at its end is sent as nothing, and an empty field as an empty field. (httpx2 refuses the former itself.)"""
    with stack.client(stack.auth(tradovate_provider)) as client:
        assert client.post(order_url(tradovate_emulator), Body("bytesio", b"")).status == 200
        assert client.post(order_url(tradovate_emulator), Body("multipart-file", b"")).status == 200
    assert [order.body == b"" for order in tradovate_emulator.orders] == [True, False]


@every_stack
@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_only_a_401_is_sent_again(
    stack: Stack, status: int, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """408, 429 and 5xx come back to the caller untouched: the order may have been placed."""
    tradovate_emulator.inject(Fault("/order/placeorder", "status", status=status, payload=b"as it was"))
    with stack.client(stack.auth(tradovate_provider)) as client:
        answer = client.post(order_url(tradovate_emulator), Body("json"))
    assert (answer.status, answer.body) == (status, b"as it was")
    counts = tradovate_emulator.counts
    assert (counts.calls, counts.renewals, counts.logins) == (1, 0, 1)


@every_stack
def test_an_order_behind_a_redirect_is_not_placed_twice(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """An order that is answered with 303, to a page that says 401: the page is asked again, the order is not sent again."""
    page = f"{tradovate_emulator.url}/account/list"
    tradovate_emulator.inject(Fault("/order/placeorder", "status", status=303, headers={"Location": page}))
    tradovate_emulator.inject(Fault("/account/list", "status", status=401))
    with stack.client(stack.auth(tradovate_provider)) as client:
        answer = client.post(order_url(tradovate_emulator), Body("json"))
    asked = [
        (each.method, each.path.rpartition("/")[2], each.status)
        for each in tradovate_emulator.requests
        if "/auth/" not in each.path
    ]
    assert asked == [("POST", "placeorder", 303), ("GET", "list", 401), ("GET", "list", 200)]
    assert answer.status == 200


@every_stack
def test_an_upload_refused_before_it_was_read_is_sent_again_whole(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A 401 that comes while a megabyte is still being written: the second time the server gets all of it, once."""
    payload = bytes(range(256)) * 4096
    url = order_url(tradovate_emulator)
    tradovate_emulator.configure(early_401=True)
    with stack.client(stack.auth(tradovate_provider)) as client:
        assert client.get(f"{tradovate_emulator.url}/account/list").status == 200
        tradovate_emulator.revoke()
        assert client.post(url, Body("file", payload)).status == 200
    assert [order.body == payload for order in tradovate_emulator.orders] == [True]
