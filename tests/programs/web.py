"""A web application that asks the server for every request it gets: with threads, with loops of its own, on the worker's loop.

It answers with its process, the status of its call, and whether the process was forked after this module was loaded.
"""

# mypy: ignore-errors

import asyncio
import json
import os

import requests

from tradovate_auth import TokenProvider
from tradovate_auth.requests import RequestsTransport, TradovateAuth

URL = os.environ["TRADOVATE_ENVIRONMENT"] + "/account/list"
LOADED_BY = os.getpid()

provider = TokenProvider.from_env(transport=RequestsTransport())
session = requests.Session()
session.auth = TradovateAuth(provider)
if os.environ["WEB_USES_IT_AT_ONCE"]:
    # Not by a call with the session: its connection would be every worker's.
    provider.get()


def answer(status):
    """Tell what came of a call."""
    return json.dumps([os.getpid(), status, os.getpid() != LOADED_BY]).encode()


def respond(body, start_response):
    """Finish a request."""
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def threads(_, start_response):
    """Make the call on the thread of the request."""
    return respond(answer(session.get(URL, timeout=20).status_code), start_response)


def loops(_, start_response):
    """Make the call on a loop that lives as long as the request."""
    import httpx

    from tradovate_auth.httpx import TradovateAuth

    async def call():
        async with httpx.AsyncClient(auth=TradovateAuth(provider), timeout=20) as client:
            return (await client.get(URL)).status_code

    return respond(answer(asyncio.run(call())), start_response)


async def one_loop(scope, _, send):
    """Make the call on the worker's one loop."""
    if scope["type"] != "http":
        return
    import aiohttp

    from tradovate_auth.aiohttp import TradovateAuth

    async with (
        aiohttp.ClientSession(middlewares=(TradovateAuth(provider),)) as client,
        client.get(URL) as response,
    ):
        body = answer(response.status)
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
