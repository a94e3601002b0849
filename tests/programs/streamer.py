"""A bot as many are: one long-lived httpx.AsyncClient, its headers built once after the login, and never a renewal."""

# mypy: ignore-errors

import asyncio
import json
import os
from contextlib import suppress

import httpx

statuses = []


class Tradovate:
    """What such bots call their API wrapper."""

    def __init__(self):
        self.client = httpx.AsyncClient(base_url=os.environ["BOT_API"], timeout=20)
        self.headers = {"Content-Type": "application/json", "Accept": "application/json"}

    async def connect(self):
        """Log in."""
        body = {
            "name": os.environ["BOT_USER"],
            "password": os.environ["BOT_PASSWORD"],
            "appId": "Emulated App",
            "appVersion": "1.0",
            "cid": "4711",
            "sec": os.environ["BOT_SEC"],
        }
        answer = (await self.client.post("/auth/accessTokenRequest", json=body, headers=self.headers)).json()
        if "errorText" in answer:
            raise RuntimeError(answer["errorText"])
        self.headers["Authorization"] = f"Bearer {answer['accessToken']}"
        print("token until", answer["expirationTime"], "for user", answer["userId"], flush=True)

    async def whoami(self):
        """Ask who we are."""
        return await self.client.get("/auth/me", headers=self.headers)


async def main():
    """Ask who we are until somebody presses Ctrl-C."""
    api = Tradovate()
    await api.connect()
    while True:
        statuses.append((await api.whoami()).status_code)
        await asyncio.sleep(0.1)


with suppress(KeyboardInterrupt):
    asyncio.run(main())
print(json.dumps(statuses))
