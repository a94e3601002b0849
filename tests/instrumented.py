"""What the tests of instrumentation share: clients that know nothing of us, and what they send."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from core_tools import Recorder, SocketTransport
from stacks import AIOHTTP, REQUESTS, Client, Stack

from tradovate_auth import Credentials, TokenProvider
from tradovate_auth._wire import login_call
from tradovate_auth.events import Warned
from tradovate_auth.instrumentation import uninstrument
from tradovate_auth.storage import MemoryStorage
from tradovate_auth.testing import Emulator

__all__ = ["DEAD", "Scene", "bare", "insecure", "login_fields", "parsed", "scene"]

DEAD = {"Authorization": "Bearer a-dead-token-of-the-clients"}


@dataclass
class Scene:
    """A server, a provider for its user, and what the provider tells."""

    server: Emulator
    events: Recorder = field(default_factory=Recorder)
    provider: TokenProvider = field(init=False)

    def __post_init__(self) -> None:
        self.provider = self.another()

    def another(self, **options: Any) -> TokenProvider:
        """Return a further provider, with a storage of its own."""
        credentials = Credentials(**{**self.server.credentials, **options.pop("who", {})})
        defaults = {
            "environment": self.server.url,
            "storage": MemoryStorage(),
            "transport": SocketTransport(),
            "on_event": self.events,
        }
        return TokenProvider(credentials, **{**defaults, **options})

    @property
    def accounts(self) -> str:
        """A page that answers with 200 to a good token."""
        return f"{self.server.url}/account/list"

    @property
    def login(self) -> str:
        """Where a session is opened, as the vendor's pages spell it."""
        return f"{self.server.url}/auth/accessTokenRequest"

    @property
    def renewal(self) -> str:
        """Where one is extended."""
        return f"{self.server.url}/auth/renewAccessToken"

    @property
    def user(self) -> str:
        """Who the provider is."""
        return str(self.server.credentials["name"])

    @property
    def exchanges(self) -> tuple[int, int]:
        """Logins and renewals that have reached the server."""
        return self.server.counts.logins, self.server.counts.renewals

    @property
    def carried(self) -> list[str | None]:
        """The authorization of every request but the auth calls."""
        return [each.authorization for each in self.server.requests if "/auth/" not in each.path]

    @property
    def warnings(self) -> list[str]:
        """What the provider has warned of."""
        return [each.reason for each in self.events.of(Warned)]

    def log_in(self, client: Client, **fields: Any) -> dict[str, Any]:
        """Log in as somebody's bot does; return the answer's fields."""
        return parsed(client.call("POST", self.login, json={**login_fields(self.server), **fields}))


def login_fields(server: Emulator) -> dict[str, Any]:
    """The body of a login of the server's user, as the vendor's pages have it."""
    found: dict[str, Any] = json.loads(login_call(Credentials(**server.credentials), "").body or b"")
    return found


def parsed(answer: Any) -> dict[str, Any]:
    """The fields of an answer that must be a good one."""
    assert (answer.status, answer.headers["content-type"].split(";")[0]) == (200, "application/json")
    found = json.loads(answer.body)
    assert isinstance(found, dict)
    return found


@pytest.fixture
def scene(tradovate_emulator: Emulator) -> Iterator[Scene]:
    """Yield a scene; leave nothing instrumented behind."""
    opened = Scene(tradovate_emulator)
    yield opened
    uninstrument()
    opened.provider.close()


def bare(stack: Stack, **options: Any) -> Client:
    """Open a client without any auth."""
    if stack is AIOHTTP:
        options["middlewares"] = ()
    return stack.client(None, **options)


def insecure(stack: Stack) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of a client, and of its calls, that switch off the checks of certificates."""
    if stack is REQUESTS:  # of a session it would lose against a bundle that the environment names
        return {}, {"verify": False}
    return ({}, {"ssl": False}) if stack is AIOHTTP else ({"verify": False}, {})
