"""What the tests of the adapters share: pages, counts, and token sources that have little or nothing to give."""

import datetime as dt
from typing import Any

from tradovate_auth import AccessToken, Environment, StorageError, TradovateAuthError
from tradovate_auth.testing.emulator import Emulator, Fault

__all__ = ["FailingSource", "LastSource", "accounts", "calls", "exchanges", "refuse_once"]


def accounts(emulator: Emulator) -> str:
    """A page that answers with 200 to a good token."""
    return f"{emulator.url}/account/list"


def calls(emulator: Emulator) -> list[tuple[str, str, int | None]]:
    """Method, last part of the path and status of every ordinary request."""
    return [
        (each.method, each.path.rpartition("/")[2], each.status)
        for each in emulator.requests
        if "/auth/" not in each.path
    ]


def exchanges(emulator: Emulator) -> tuple[int, int]:
    """Logins and renewals that were sent."""
    return emulator.counts.logins, emulator.counts.renewals


def refuse_once(emulator: Emulator, path: str = "/account/list", **fault: Any) -> None:
    """Answer the next call with 401, whatever its token is worth."""
    emulator.inject(Fault(path, "status", status=401, **{"payload": b"no", **fault}))


class FailingSource:
    """A token source that has only an error to give."""

    def __init__(self, error: TradovateAuthError, url: str) -> None:
        self.error = error
        self.environment = Environment.of(url)

    def get(self, timeout: float | None = 30.0, *, min_ttl: float = 0.0) -> AccessToken:
        """Raise it."""
        raise self.error

    async def aget(self, *, min_ttl: float = 0.0) -> AccessToken:
        """Raise it."""
        raise self.error

    def reject(self, token: AccessToken, *, method: str = "", path: str = "") -> bool:
        """Never called."""
        raise NotImplementedError

    def report(self, token: AccessToken, status: int) -> None:
        """Never called."""
        raise NotImplementedError


class LastSource(FailingSource):
    """A source that has one token, for an hour, and no other."""

    def __init__(self, url: str) -> None:
        super().__init__(StorageError("gone"), url)
        now = dt.datetime.now(dt.UTC)
        self.token = AccessToken(value="TEST", issued_at=now, expires_at=now + dt.timedelta(hours=1))
        self.reported: list[int] = []
        self.asked: list[float] = []

    def get(self, timeout: float | None = 30.0, *, min_ttl: float = 0.0) -> AccessToken:
        """Return the token to whoever is content with it."""
        self.asked.append(min_ttl)
        if min_ttl > 3600:
            raise self.error
        return self.token

    async def aget(self, *, min_ttl: float = 0.0) -> AccessToken:
        """Do the same."""
        return self.get(min_ttl=min_ttl)

    def report(self, token: AccessToken, status: int) -> None:
        """Remember what was reported."""
        self.reported.append(status)
