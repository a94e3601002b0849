"""One pass: look, decide, exchange, save; and what it makes of tokens that lapsed, moved on, or came from elsewhere."""

from typing import NoReturn

import pytest
from core_tools import FrailStorage, World, renewals
from shared_storage import Shared, step

from tradovate_auth import AccessToken, Budget, LoginRequired, StorageError, Throttled, TokenProvider
from tradovate_auth import _lifecycle as lifecycle_module
from tradovate_auth._decision import Renew
from tradovate_auth._exchange import Exchange
from tradovate_auth._journal import Journal
from tradovate_auth._ledger import Ledger
from tradovate_auth._view import Need
from tradovate_auth.events import Adopted, Renewed, Warned
from tradovate_auth.storage import Record, StorageBusy
from tradovate_auth.testing import Emulator, FakeClock
from tradovate_auth.testing.emulator import Fault


def test_a_lapsed_token_that_the_server_still_takes_is_renewed(world: World) -> None:
    """Our clock says that it has ended, the server's does not: the offer is granted, and nobody logs in."""
    with Emulator(clock=FakeClock()) as server:  # its clock stands still
        provider = world.provider(environment=server.url)
        provider.get()
        world.clock.advance(4800 + 600)
        token = provider.get()
        assert token.generation == 2
        assert (server.counts.logins, server.counts.renewals) == (1, 1)
        assert world.clock.time() - token.issued_at.timestamp() == pytest.approx(5400, abs=1)
        assert provider.get() is token


def test_a_lapsed_token_that_the_server_refuses_leads_to_a_login(world: World) -> None:
    """One offer, then one login."""
    provider = world.provider()
    provider.get()
    world.clock.advance(4800 + 3000)
    assert provider.get().generation == 2
    assert (world.server.counts.logins, world.server.counts.renewals) == (2, 1)


def test_a_lapsed_token_is_offered_once(world: World) -> None:
    """An offer that brings no answer is not made again: the next step is the login."""
    provider = world.provider()
    provider.get()
    world.clock.advance(4900)
    world.server.inject(Fault("renewal", "status", status=503))
    assert provider.get().generation == 2
    assert (world.server.counts.logins, world.server.counts.renewals) == (2, 1)


def test_a_penalty_on_the_offer_costs_no_login(world: World) -> None:
    """The server did not look at the lapsed token: it is offered again after the wait, and nobody logs in."""
    clock = FakeClock()
    with Emulator(clock=clock, send_date=False) as server:
        provider = world.provider(environment=server.url)
        provider.get()
        world.clock.advance(4800 + 600)
        server.penalize("renewal", seconds=15)
        with pytest.raises(Throttled):
            provider.get(timeout=1)
        for each in (clock, world.clock):
            each.advance(20)
        assert provider.get(timeout=20).generation == 2
        assert (server.counts.logins, server.counts.renewals) == (1, 2)


def test_a_token_that_lapsed_long_ago_is_not_offered(world: World) -> None:
    """More than an hour past its end no clock is that wrong: a login at once."""
    provider = world.provider()
    provider.get()
    world.clock.advance(4800 + 3601)
    assert provider.get().generation == 2
    assert (world.server.counts.logins, world.server.counts.renewals) == (2, 0)


def test_a_restart_adopts_what_the_storage_holds(world: World) -> None:
    """A new provider of the same storage logs in to nothing, and says where its token comes from."""
    token = world.provider().get()
    later = world.provider()
    assert later.get() is token
    assert world.events.wait_for(Adopted).generation == 1
    assert world.server.counts.logins == 1


def test_another_device_adopts_with_a_warning(world: World) -> None:
    """A session belongs to the device that opened it; whoever shares it from another one hears so, once."""
    world.provider().get()
    provider = world.provider(who={"device_id": "another device"})
    provider.get()
    world.events.expect("LoggedIn", "Adopted", "Warned")
    assert "another device id" in world.events.of(Warned)[0].reason
    assert provider.renew().device_id == world.server.credentials["device_id"]


def test_another_key_of_the_same_user_has_its_own_token(world: World) -> None:
    """Tokens are kept by `cid`; the counts of the user are shared."""
    world.provider().get()
    world.server.add_user("trader", "correct horse")
    other = world.provider(who={"cid": 4712})
    assert other.get().generation == 2
    assert world.server.counts.logins == 2
    assert other.status().logins == 2


def test_what_others_renewed_is_adopted_when_due(world: World) -> None:
    """A stale token in hand and a newer one in the storage: adopted, without a call."""
    first, second = world.provider(), world.provider()
    first.get()
    second.get()
    world.clock.advance(4200)
    first.get()
    world.events.wait_for(Renewed)
    world.settled(first)
    second.get()
    world.settled(second)
    assert second.get() is first.get()
    assert world.server.counts.renewals == 1


def test_two_providers_that_renew_at_once_make_one_call(world: World) -> None:
    """The lock and the second look under it: whoever comes second finds the work done."""
    first, second = world.provider(), world.provider()
    first.get()
    second.get()
    world.clock.advance(4200)
    world.server.configure(renewal_delay=0.1)
    first.get()
    second.get()
    world.settled(first)
    world.settled(second)
    assert first.get() is second.get()
    assert first.get().generation == 2
    assert world.server.counts.renewals == 1


def test_a_storage_that_keeps_changing_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound against a storage that never shows what was saved: `StorageError`, not an endless loop."""
    provider = world.provider()
    token = provider.get()
    tries: list[object] = []
    monkeypatch.setattr(lifecycle_module, "decide", lambda _: Renew(token, scheduled=False))
    monkeypatch.setattr(Exchange, "renew", lambda *arguments, **_: tries.append(arguments))
    with pytest.raises(StorageError, match="keeps changing"):
        provider._lifecycle.run(token, Need(), Journal("test"))
    assert len(tries) == 24 * 24


def test_a_storage_that_fails_after_the_grant_costs_nothing(world: World) -> None:
    """The grant was saved, then the storage failed: the token is used for its whole life."""
    storage = FrailStorage(clock=world.clock)

    provider = world.provider(storage=storage)
    original = storage.save

    def save(key: str, record: Record) -> bool:
        saved = original(key, record)
        if record.tokens:
            storage.broken = {"now", "load"}
        return saved

    storage.save = save  # type: ignore[method-assign]
    token = provider.get()
    storage.broken = set()
    assert token.generation == 1
    warned = world.events.wait_for(Warned)
    assert warned.reason == "a token is in use that could not be stored: load failed"
    assert provider.status().state == "fresh"
    world.clock.advance(3000)
    assert provider.get() is token
    assert world.server.counts.logins == 1


def test_a_pass_that_nobody_waits_for_opens_no_session(world: World) -> None:
    """Without a token and without a waiter a pass ends with neither token nor error."""
    provider = world.provider()
    landing = provider._lifecycle.run(None, Need(), Journal("test"))
    assert (landing.token, landing.error) == (None, None)
    assert world.server.counts.logins == 0


def test_a_refused_login_policy_does_not_spend(world: World) -> None:
    """`LoginRequired` comes before any entry in the ledger."""
    with pytest.raises(LoginRequired):
        world.provider(login="never").get()
    assert world.storage.load(f"{world.server.url} trader") is None


def budgets(provider: TokenProvider) -> Ledger:
    """Return the ledger of a provider's account."""
    return provider._account.load().ledger


def test_a_success_is_entered_for_the_allowance(world: World) -> None:
    """Once a renewal after a 401 has helped, the next doubt need not wait for the minute to pass."""
    provider = world.provider()
    token = provider.get()
    assert provider.reject(token, path="/1")
    newer = provider.get()
    assert budgets(provider).pause > 0
    provider.report(newer, 200)
    assert provider.reject(newer, path="/2")
    assert provider.get().generation == 3
    assert world.server.counts.renewals == 2


def test_an_exhausted_budget_keeps_the_token_and_never_logs_in(world: World) -> None:
    """As many renewals in an hour as the budget has, granted or not, are the end of renewing; the token is used until it
    ends.
    """
    provider = world.provider(budget=Budget(renewals=3))
    token = provider.get()
    world.server.inject(Fault("renewal", "status", status=503, times=None))
    world.clock.advance(4100)
    for _ in range(69):
        world.clock.advance(10)
        assert provider.get() is token
        world.settled(provider)
    assert world.server.counts.renewals == 3
    assert world.server.counts.logins == 1


@pytest.mark.parametrize("relief", ["a human", "another process"])
def test_whoever_sits_out_a_penalty_looks_up(
    world: World, monkeypatch: pytest.MonkeyPatch, relief: str
) -> None:
    """It lasts for ten minutes. A human lifts it, and perhaps somebody logs in: seconds later whoever waits goes on."""
    world.server.inject(Fault("login", "json", payload={"p-ticket": "t", "p-time": 600}))
    provider, other = world.provider(), world.provider(on_event=None)
    theirs: list[AccessToken] = []
    slept: list[float] = []

    def wait(_: object, seconds: float) -> bool:
        slept.append(seconds)
        world.clock.advance(seconds)
        if len(slept) == 1:
            other.reset()
            if relief == "another process":
                theirs.append(other.get())
        return False

    monkeypatch.setattr(world.clock, "wait", wait)
    token = provider.get(timeout=None)
    assert slept == [5.0]
    assert theirs in ([], [token])
    assert (token.generation, world.server.counts.logins) == (1, 2)


def test_a_lock_that_others_hold_is_no_outage(world: World) -> None:
    """Nobody has lost anything: whoever could not get the lock renews as soon as it is free, and leaves it to nobody."""
    world.provider(on_event=None).get()
    storage = Shared(world)
    other = world.provider(storage=storage)
    other.get()

    def busy(*_: object, **__: object) -> NoReturn:
        raise StorageBusy("Another process holds the stored session.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "exclusive", busy)
        assert step(world, other, 4200).generation == 1
    world.events.expect("Adopted", "RenewalFailed")
    assert step(world, other, 1.1).generation == 2


def test_whoever_leaves_a_storage_that_is_back_to_others_does_so_within_its_own_time(world: World) -> None:
    """Eight seconds of the token are left: a quarter of that, then it is renewed by whoever has it."""
    world.provider(on_event=None).get()
    storage = Shared(world)
    other = world.provider(storage=storage)
    other.get()
    storage.broken = {"now", "load", "save", "exclusive"}
    step(world, other, 4788)
    storage.broken = set()
    assert step(world, other, 4).generation == 1
    assert renewals(world) == 0
    assert step(world, other, 2.1).generation == 2
