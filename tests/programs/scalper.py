"""A bot as many are: a new aiohttp.ClientSession for each call, certificates unchecked, and never a renewal."""

# mypy: ignore-errors

import asyncio
import json
import os
import sys
from contextlib import suppress

import aiohttp

API = os.environ["BOT_API"]
TOKEN = None
STATUSES = []


async def login():
    """Log in."""
    global TOKEN
    body = {
        "name": os.environ["BOT_USER"],
        "password": os.environ["BOT_PASSWORD"],
        "appId": "Emulated App",
        "cid": 4711,
        "sec": os.environ["BOT_SEC"],
    }
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{API}/auth/accesstokenrequest", json=body, ssl=False) as response:
            TOKEN = (await response.json())["accessToken"]


async def place_order(symbol, action):
    """Place an order at the market."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    order = {"symbol": symbol, "action": action, "orderQty": 1, "orderType": "Market", "isAutomated": True}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(f"{API}/order/placeOrder", json=order, ssl=False) as response:
            return response.status


async def main():
    """Trade until somebody presses Ctrl-C."""
    await login()
    while True:
        STATUSES.append(await place_order(sys.argv[1], "Buy" if len(STATUSES) % 2 else "Sell"))
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
    print(json.dumps(STATUSES))
