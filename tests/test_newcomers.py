"""Processes that start: served with the token that lies there, at once; and what ends the wait for a lock that others hold."""

import threading
from contextlib import suppress

import pytest
from core_tools import GatedTransport, World, eventually, logins, renewals
from shared_storage import Shared
from values import MINUTE

from tradovate_auth import (
    AccessToken,
    ProviderClosed,
    StorageError,
    TokenProvider,
    TokenTimeout,
)


def due(world: World) -> AccessToken:
    """Let a process obtain a token and end, and time pass until that is due; return it."""
    with world.provider(on_event=None) as owner:
        token = owner.get()
    world.clock.advance(4200)
    return token


def test_a_newcomer_gets_a_due_token_at_once(world: World) -> None:
    """Whoever renews it may be asleep: the living token in the storage is for everybody, and the renewal waits beside."""
    token = due(world)
    newcomer = world.provider()
    with world.storage.exclusive(newcomer._account.key, 1.0):
        assert newcomer.get(timeout=20) is token
        assert newcomer.get(timeout=0) is token
        assert renewals(world) == 0
    eventually(lambda: newcomer.get() is not token)
    world.events.expect("Adopted", "Renewed")
    assert logins(world) == 1


def test_a_newcomer_gets_a_due_token_from_a_storage_that_cannot_be_written(world: World) -> None:
    """A disk that is full or read-only keeps nobody from the token that lies on it, and leads to no login."""
    token = due(world)
    storage = Shared(world)
    storage.broken = {"save", "exclusive"}
    newcomer = world.provider(storage=storage, login_without_storage=True)
    assert newcomer.get(timeout=20) is token
    world.settled(newcomer)
    assert newcomer.get() is token
    assert (logins(world), renewals(world)) == (1, 0)


def test_a_newcomer_who_wants_a_longer_life_waits(world: World) -> None:
    """`min_ttl` is longer than the due token lives: that is renewed first, as by anybody."""
    token = due(world)
    renewed = world.provider().get(min_ttl=20 * MINUTE)
    assert renewed.generation == token.generation + 1


def test_a_gate_of_another_process_is_no_wait_for_those_with_a_token(world: World) -> None:
    """While one process renews, which takes long, a newcomer works with the old token."""
    token = due(world)
    gated = GatedTransport()
    renewing = world.provider(transport=gated, on_event=None)
    gated.gate.clear()
    renewing.get()
    threading.Thread(target=renewing.get).start()
    eventually(gated.arrived.is_set)
    assert world.provider(on_event=None).get(timeout=20) is token
    gated.gate.set()
    world.settled(renewing)
    assert (logins(world), renewals(world)) == (1, 1)
    with suppress(StorageError):
        renewing.close()


def test_whoever_gives_up_is_told_who_holds_the_session(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No token lives, another process holds the lock: the caller's own time ends first, and the error names that process."""
    monkeypatch.setattr("tradovate_auth._account._LOCK_SLICE", 0.05)
    provider = world.provider()
    with world.storage.exclusive(provider._account.key, 1.0):
        with pytest.raises(TokenTimeout) as caught:
            provider.get(timeout=0.5)
        assert caught.value.message.endswith(provider._account.busy)
        assert "still at work" in provider._account.busy
    assert provider.get().generation == 1
    assert provider._account.busy == ""


def test_a_closed_provider_waits_for_no_lock(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its flight ends soon after `close`, and the login that it was to make is never sent."""
    monkeypatch.setattr("tradovate_auth._account._LOCK_SLICE", 0.05)
    provider = world.provider()
    with world.storage.exclusive(provider._account.key, 1.0):
        with pytest.raises(TokenTimeout):
            provider.get(timeout=0.2)
        provider.close()
        world.settled(provider)
    assert logins(world) == 0


def test_a_provider_that_is_closed_in_its_pass_sends_nothing(world: World) -> None:
    """The lock was free at last, the provider is closed: what has been entered for the call is taken back."""

    class Closing(Shared):
        closing: TokenProvider | None = None

        def now(self) -> float:
            if self.closing is not None:
                self.closing._account.closing.set()
            return super().now()

    storage = Closing(world)
    provider = world.provider(storage=storage, on_event=None)
    storage.closing = provider
    with pytest.raises(ProviderClosed):
        provider.get()
    storage.closing = None
    assert logins(world) == 0
    record = provider._account.load()
    assert record.ledger.failed_logins == ()
    assert provider._account.machine.load().ledger.failed_logins == ()
