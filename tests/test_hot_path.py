"""The short way of a request with a fresh token: it skips calls, and nothing else."""

import pytest
from stacks import Stack, every_stack, plain_environment, tradovate_provider

from tradovate_auth import AccessToken, ProviderClosed, TokenProvider
from tradovate_auth.storage import MemoryStorage
from tradovate_auth.testing import Emulator

__all__ = ["plain_environment", "tradovate_provider"]


class Counting(TokenProvider):
    """A provider that somebody has changed."""

    asked = 0

    def get(self, timeout: float | None = 30.0, *, min_ttl: float = 0.0) -> AccessToken:
        """Count, and go on."""
        self.asked += 1
        return super().get(timeout, min_ttl=min_ttl)

    async def aget(self, *, min_ttl: float = 0.0) -> AccessToken:
        """Count, and go on."""
        self.asked += 1
        return await super().aget(min_ttl=min_ttl)


def accounts(emulator: Emulator) -> str:
    """Return the URL of a question that any token answers."""
    return f"{emulator.url}/account/list"


@every_stack
def test_a_newer_token_replaces_a_fresh_one_at_once(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A renewal that somebody asked for is on the very next request, though the old token was good for an hour more."""
    with stack.client(stack.auth(tradovate_provider)) as client:
        for _ in range(2):
            assert client.get(accounts(tradovate_emulator)).status == 200
        old = tradovate_provider.get()
        new = tradovate_provider.renew()
        for _ in range(2):
            assert client.get(accounts(tradovate_emulator)).history == ()
    carried = [
        request.authorization for request in tradovate_emulator.requests if request.path == "/v1/account/list"
    ]
    assert carried == [old.authorization] * 2 + [new.authorization] * 2
    assert tradovate_emulator.counts.calls_unauthorized == 0


@every_stack
def test_a_closed_provider_is_closed_for_all(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """Closing counts from the next request on, however fresh the token was."""
    with stack.client(stack.auth(tradovate_provider)) as client:
        assert client.get(accounts(tradovate_emulator)).status == 200
        tradovate_provider.close()
        with pytest.raises(ProviderClosed):
            client.get(accounts(tradovate_emulator))


@every_stack
def test_any_other_source_is_asked_for_every_request(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """The short way is for our own provider; one that was changed, or any other source, decides each time."""
    with (
        Counting(
            tradovate_provider._account.credentials,
            environment=tradovate_emulator.url,
            storage=MemoryStorage(),
        ) as provider,
        stack.client(stack.auth(provider)) as client,
    ):
        for _ in range(3):
            assert client.get(accounts(tradovate_emulator)).status == 200
        assert provider.asked == 3
