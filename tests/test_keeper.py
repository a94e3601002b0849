"""The token in hand: who waits, who is served, what a refusal leads to, and what listeners hear."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from core_tools import FrailStorage, GatedTransport, Recorder, World, at_once, eventually

from tradovate_auth import (
    AccessToken,
    ConfigurationError,
    LockedOut,
    LoginRefused,
    ProviderClosed,
    StorageError,
    Throttled,
    TokenProvider,
    TokenTimeout,
)
from tradovate_auth._refusals import Refusals
from tradovate_auth.events import Event, Evicted, LoggedIn, RenewalFailed, Renewed, Warned
from tradovate_auth.storage import Record
from tradovate_auth.testing.emulator import Fault
from tradovate_auth.transport import Call, Reply


def logins(world: World) -> int:
    """Return how many login calls the server has received."""
    return world.server.counts.logins


def renewals(world: World) -> int:
    """Return how many renewal calls the server has received."""
    return world.server.counts.renewals


def test_thirty_callers_with_a_wrong_password_make_one_call(world: World) -> None:
    """All get `LoginRefused`, at once and later; a human's `reset` allows one more call; corrected credentials work."""
    wrong = {"password": "wrong horse"}
    provider = world.provider(who=wrong)
    for count in (1, 1, 2):
        if count == 2:
            provider.reset()
        outcomes = at_once(30, provider.get)
        assert {type(outcome) for outcome in outcomes} == {LoginRefused}
        assert len({id(outcome) for outcome in outcomes}) == 30
        assert logins(world) == count
        world.clock.advance(5)  # beyond the provider's own memory: now the storage says so
    assert world.provider().get().generation == 1


def test_twenty_callers_on_a_revoked_token_share_the_next_one(world: World) -> None:
    """All get the same new token: one renewal that is refused, one login."""
    provider = world.provider()
    token = provider.get()
    world.server.revoke()

    def call() -> AccessToken:
        assert provider.reject(token, method="GET", path="/account/list")
        return provider.get()

    outcomes = at_once(20, call)
    assert {outcome.generation for outcome in outcomes if isinstance(outcome, AccessToken)} == {2}
    assert len({id(outcome) for outcome in outcomes}) == 1
    assert (logins(world), renewals(world)) == (2, 1)
    world.events.expect("LoggedIn", "Evicted", "LoggedIn")


def test_twenty_callers_on_a_doubted_token_share_one_renewal(world: World) -> None:
    """A token that only the ordinary endpoints refuse is renewed once for all, and nobody logs in."""
    provider = world.provider()
    token = provider.get()
    outcomes = at_once(20, lambda: provider.reject(token) and provider.get())
    assert len({id(outcome) for outcome in outcomes}) == 1
    assert (logins(world), renewals(world)) == (1, 1)
    assert provider.get().generation == 2


def test_an_older_generation_is_replaced_without_a_call(world: World) -> None:
    """Whoever was refused with an older token than the one in hand has only to send again with that."""
    provider = world.provider()
    old = provider.get()
    provider.renew()
    calls = len(world.transport.calls)
    assert provider.reject(old, method="GET", path="/account/list")
    assert provider.get().generation == 2
    assert len(world.transport.calls) == calls


def test_rejecting_never_blocks(world: World) -> None:
    """`reject` returns while the exchange that it has caused stands at a closed gate."""
    transport = GatedTransport()
    transport.gate.set()
    provider = world.provider(transport=transport)
    token = provider.get()
    transport.gate.clear()
    assert provider.reject(token)
    assert not provider._keeper.flight.join().landed
    with pytest.raises(TokenTimeout):
        provider.get(timeout=0.02)
    transport.gate.set()
    assert provider.get().generation == 2


def test_a_call_that_is_refused_straight_after_a_renewal_is_refused(world: World) -> None:
    """For the same method and path the second 401 is the answer, without a call; another path is another question."""
    provider = world.provider()
    assert provider.reject(provider.get(), method="GET", path="/secret")
    token = provider.get()
    assert token.generation == 2
    assert not provider.reject(token, method="GET", path="/secret")
    assert not provider.reject(token, method="GET", path="/secret")
    assert renewals(world) == 1
    assert provider.get() is token


def test_what_a_renewal_has_cured_may_be_doubted_again(world: World) -> None:
    """A success with the new token proves the renewal right: the next 401 of that path is asked about at once."""
    provider = world.provider()
    for generation in (1, 2, 3):
        token = provider.get()
        assert token.generation == generation
        assert provider.reject(token, method="GET", path="/account/list")
        provider.report(provider.get(), 200)
    assert renewals(world) == 3


def test_missing_permissions_cannot_eat_the_budget(world: World) -> None:
    """Thirty paths that no renewal opens, in ten minutes: a handful of renewals, and every caller gets its answer."""
    provider = world.provider()
    provider.get()
    for number in range(30):
        token = provider.get()
        if provider.reject(token, method="GET", path=f"/secret/{number}"):
            assert provider.get() is not None
        world.clock.advance(20)
    assert 2 <= renewals(world) <= 5
    assert logins(world) == 1


def test_a_doubt_that_brings_nothing_is_the_answer_for_a_moment(world: World) -> None:
    """Where the allowance permits no renewal, callers get the token that there is, and are told not to ask again."""
    provider = world.provider()
    provider.reject(provider.get(), path="/1")
    token = provider.get()
    assert provider.reject(token, path="/2")
    assert provider.get() is token
    assert not provider.reject(token, path="/3")
    assert renewals(world) == 1
    world.clock.advance(2)
    assert provider.reject(token, path="/3")
    assert provider.get() is token
    provider.reset()
    assert provider.reject(token, path="/4")
    assert provider.get().generation == 3


def test_a_doubt_during_a_flight_is_not_lost(world: World) -> None:
    """A token doubted while a flight is on its way that brings nothing new stays doubted: the next caller has it renewed."""
    transport = GatedTransport()
    transport.gate.set()
    provider = world.provider(transport=transport)
    token = provider.get()
    world.clock.advance(4200)
    world.server.inject(Fault("renewal", "status", status=503))
    transport.gate.clear()
    transport.arrived.clear()
    assert provider.get() is token
    assert transport.arrived.wait(10)
    assert provider.reject(token)
    transport.gate.set()
    world.events.wait_for(RenewalFailed)
    assert provider.get().generation == 2
    assert renewals(world) == 2


def test_what_was_refused_is_remembered_up_to_a_point() -> None:
    """At most 256 calls are remembered; the oldest are forgotten first."""
    refusals = Refusals()
    for number in range(300):
        refusals.ask(1, "GET", f"/secret/{number}")
    refusals.brought(2)
    assert not refusals.is_final(2, "GET", "/secret/43")
    assert refusals.is_final(2, "GET", "/secret/44")
    assert refusals.is_final(2, "GET", "/secret/299")
    assert not refusals.is_final(3, "GET", "/secret/299")


def test_three_faults_in_a_row_lead_to_one_probe(world: World) -> None:
    """408, 429 and 5xx count together; the third asks for a renewal, which finds the session alive."""
    provider = world.provider()
    token = provider.get()
    for status in (408, 429):
        provider.report(token, status)
    world.settled(provider)
    assert renewals(world) == 0
    provider.report(token, 502)
    world.events.wait_for(Renewed)
    world.settled(provider)
    assert (renewals(world), provider.get().generation) == (1, 2)
    provider.report(token, 500)  # the old one: nobody's business any more
    provider.report(token, 500)
    provider.report(token, 500)
    world.settled(provider)
    assert renewals(world) == 1


def test_a_success_between_faults_resets_them(world: World) -> None:
    """Only faults in a row are a sign; 401 and other refusals neither count nor reset."""
    provider = world.provider()
    token = provider.get()
    for status in (500, 500, 200, 500, 404, 500):
        provider.report(token, status)
    world.settled(provider)
    assert renewals(world) == 0
    provider.report(token, 500)
    world.events.wait_for(Renewed)


def test_a_probe_finds_an_evicted_session(world: World) -> None:
    """The third 408 of an evicted session: `Evicted`, and one login for the next caller."""
    provider = world.provider()
    token = provider.get()
    world.server.foreign_login()
    world.server.foreign_login()
    for _ in range(3):
        provider.report(token, 408)
    world.events.wait_for(Evicted)
    assert provider.get().generation == 2
    assert (logins(world), renewals(world)) == (2, 1)


def test_a_transport_that_asks_for_its_own_token_is_told(world: World) -> None:
    """Detected by the thread it runs on: `ConfigurationError` for everybody instead of a deadlock."""

    class Recursive:
        provider: TokenProvider

        def send(self, call: Call, timeout: float) -> Reply:
            self.provider.get()
            raise AssertionError("it was given a token")

    transport = Recursive()
    transport.provider = world.provider(transport=transport)
    with pytest.raises(ConfigurationError, match="very token that it is to fetch"):
        transport.provider.get(timeout=10)


def test_a_transport_that_asks_for_a_renewal_is_told_too(world: World) -> None:
    """With a living token `get` would serve it; a `renew` inside a renewal would wait for itself."""

    class Recursive(GatedTransport):
        provider: TokenProvider

        def send(self, call: Call, timeout: float) -> Reply:
            if call.method == "GET":
                self.provider.renew()
            return super().send(call, timeout)

    transport = Recursive()
    transport.gate.set()
    transport.provider = world.provider(transport=transport)
    transport.provider.get()
    with pytest.raises(Throttled, match="very token"):
        transport.provider.renew(timeout=10)
    assert transport.provider.get().generation == 1


def test_interpreter_shutdown_serves_inline(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread starts any more, `get` logs in on the caller's own thread."""
    import _thread

    def no_more(*_: object) -> int:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    provider = world.provider()
    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", no_more)
        assert provider.get().generation == 1


def test_listeners_may_call_the_provider(world: World) -> None:
    """Events come after the landing, on the flight's thread: a listener gets the token, and may close the provider."""
    seen: list[int] = []

    def listen(event: Event) -> None:
        if isinstance(event, LoggedIn):
            seen.append(provider.get(timeout=5).generation)
            assert provider.reject(provider.get())
            seen.append(provider.get(timeout=5).generation)
            provider.close()
            seen.append(threading.get_ident())

    provider = world.provider(on_event=listen)
    with suppress(ProviderClosed):  # the listener may be faster than the waiter
        provider.get()
    eventually(lambda: len(seen) == 3)
    assert seen[:2] == [1, 2]
    assert seen[2] != threading.get_ident()
    with pytest.raises(ProviderClosed):
        provider.get()


def test_a_listener_that_fails_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Its exception costs nobody anything: it is in the log, and the next event finds the listener again."""
    recorder = Recorder()

    def listen(event: Event) -> None:
        recorder(event)
        raise ZeroDivisionError("in the listener")

    provider = world.provider(on_event=listen)
    provider.get()
    world.clock.advance(60)
    provider.renew()
    recorder.wait_for(Renewed)
    eventually(lambda: caplog.text.count("ZeroDivisionError: in the listener") == 2)
    assert "a listener failed on LoggedIn" in caplog.text


def test_events_of_one_flight_come_in_order(world: World) -> None:
    """What happened first is told first, on one thread of the package."""
    world.server.configure(
        api_hosts={"demo": "localhost"}, extra_fields={"expirationTime": "2001-01-01T00:00:00Z"}
    )
    world.provider().get()
    world.events.wait_for(Warned)
    world.events.expect("LoggedIn", "HostsMoved", "Warned")
    assert set(world.events.threads) == {"tradovate_auth flight"}


def test_events_are_logged_by_weight(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The ordinary course is INFO, everything else WARNING, under the logger `tradovate_auth`; no line holds a secret."""
    caplog.set_level(logging.INFO, "tradovate_auth")
    provider = world.provider(on_event=None)
    token = provider.get()
    world.server.revoke()
    provider.reject(token)
    newer = provider.get()
    eventually(lambda: len(caplog.records) == 3)
    assert [(record.levelname, record.name) for record in caplog.records] == [
        ("INFO", "tradovate_auth"),
        ("WARNING", "tradovate_auth"),
        ("INFO", "tradovate_auth"),
    ]
    for secret in (token.value, newer.value, world.server.credentials["password"]):
        assert secret not in caplog.text


def test_a_failure_is_remembered_for_a_second(world: World) -> None:
    """Callers of the next second hear of the last failure without asking anybody; their waits shrink with time."""
    world.server.lock_out(429)
    provider = world.provider()
    with pytest.raises(LockedOut):
        provider.get()
    loads = world.storage.loads
    world.clock.advance(0.9)
    with pytest.raises(LockedOut) as caught:
        provider.get()
    assert world.storage.loads == loads
    assert caught.value.retry_after == pytest.approx(3599, abs=1)
    world.clock.advance(0.2)
    with pytest.raises(LockedOut):
        provider.get()
    assert world.storage.loads > loads
    assert logins(world) == 1


def test_a_failure_without_an_end_is_remembered_too(world: World) -> None:
    """An error that no wait cures keeps its `retry_after` of None when it is told again."""
    provider = world.provider(login="never")
    for _ in range(2):
        with pytest.raises(Exception, match="no session to share") as caught:
            provider.get()
        assert getattr(caught.value, "retry_after", 0) is None


def test_a_stuck_flight_is_replaced_and_lands_late_in_vain(world: World) -> None:
    """A flight above the ceiling is given up; when it comes back with an older token, the newer one stays."""
    gate, hold = threading.Event(), threading.Event()

    class Sticky(FrailStorage):
        def now(self) -> float:
            if hold.is_set():
                hold.clear()
                assert gate.wait(20)
            return super().now()

    provider = world.provider(storage=Sticky(clock=world.clock))
    token = provider.get()
    world.settled(provider)
    hold.set()
    provider._keeper._forked()  # as if a fork had come between: the next use looks at the storage
    world.clock.advance(1)
    assert provider.get() is token
    stuck = provider._keeper.flight.current()
    eventually(lambda: not hold.is_set())
    assert stuck is not None
    stuck.born -= 10_000
    assert provider.renew().generation == 2
    assert not stuck.landed
    gate.set()
    stuck.wait(10)
    assert provider.get().generation == 2


def test_a_stuck_login_that_comes_back_is_used(world: World) -> None:
    """What a late flight brings is published if it is the newest there is."""
    provider = world.provider()
    token = provider.get()
    keeper = provider._keeper
    held = keeper.held
    assert not keeper._overtaken(held, None)
    keeper.held = type(held)(token, 10.0, 10.0)
    assert keeper._overtaken(held, None)
    assert keeper._overtaken(held, token)
    world.storage.broken.clear()
    newer = world.provider().renew()
    assert not keeper._overtaken(held, newer)


@contextmanager
def gated(world: World) -> Iterator[tuple[TokenProvider, GatedTransport]]:
    """Yield a provider whose login stands at a gate, with a first waiter that has already given up."""
    transport = GatedTransport()
    provider = world.provider(transport=transport)
    with pytest.raises(TokenTimeout):
        provider.get(timeout=0.01)
    assert transport.arrived.wait(10)
    yield provider, transport
    transport.gate.set()


def test_a_login_whose_only_waiter_has_left_is_kept(world: World) -> None:
    """`TokenTimeout` is the caller's alone: the login is finished, saved and used."""
    with gated(world) as (provider, transport):
        transport.gate.set()
        eventually(lambda: provider.status().generation == 1)
        assert provider.get(timeout=5).generation == 1
    assert logins(world) == 1


def test_closing_waits_for_a_login_and_saves_it(world: World) -> None:
    """A login in the air lands in the storage; the closed provider serves it to nobody, another one adopts it."""
    with gated(world) as (provider, transport):
        closer = threading.Thread(target=provider.close)
        closer.start()
        eventually(lambda: provider._keeper.closed)
        assert closer.is_alive()
        transport.gate.set()
        closer.join(10)
        assert not closer.is_alive()
        with pytest.raises(ProviderClosed):
            provider.get()
        assert provider.status().state == "closed"
    other = world.provider()
    assert other.get().generation == 1
    assert logins(world) == 1


def test_a_waiter_of_a_provider_that_closes_gets_no_token(world: World) -> None:
    """Whoever waits while it is closed hears `ProviderClosed` when the login has landed."""
    with gated(world) as (provider, transport):
        outcomes: list[object] = []
        waiter = threading.Thread(target=lambda: outcomes.extend(at_once(1, provider.get)))
        waiter.start()
        eventually(lambda: provider._keeper.flight.current() is not None)
        closer = threading.Thread(target=provider.close)
        closer.start()
        eventually(lambda: provider._keeper.closed)
        transport.gate.set()
        waiter.join(10)
        closer.join(10)
        eventually(lambda: outcomes)
        assert [type(outcome) for outcome in outcomes] == [ProviderClosed]


def test_a_closed_provider_asks_nobody(world: World) -> None:
    """After `close` nothing is sent: not by `get`, nor by `reject` or `report`, nor by a flight that starts too late."""
    provider = world.provider()
    token = provider.get()
    provider.close()
    provider.close()
    calls = len(world.transport.calls)
    with pytest.raises(ProviderClosed):
        provider.get()
    assert not provider.reject(token)
    for _ in range(3):
        provider.report(token, 500)
    with pytest.raises(ProviderClosed):
        provider._keeper.flight.join().wait(10)
    assert provider._keeper.tick() is None
    assert len(world.transport.calls) == calls


def test_a_token_lives_on_without_its_storage(world: World) -> None:
    """A storage that fails costs nobody a token that lives, fresh or due; without one it is `StorageError`.

    A process that has adopted the token does not renew it meanwhile: all of them would.
    """
    world.provider(on_event=None).get()
    provider = world.provider()
    token = provider.get()
    world.storage.broken = {"load", "save", "now", "exclusive"}
    for seconds in (4000, 200, 200, 200, 199):
        world.clock.advance(seconds)
        assert provider.get() is token
        world.settled(provider)
    world.clock.advance(2)
    with pytest.raises(StorageError):
        provider.get()
    assert (logins(world), renewals(world)) == (1, 0)
    world.storage.broken = set()
    world.clock.advance(2)
    with world.time_flies():
        assert provider.get().generation >= 2
    world.events.expect("Adopted", "StorageLost", "RenewalFailed", "LoggedIn", "StorageBack")
    assert str(world.events.all[-1]) == f"StorageBack (trader at 127.0.0.1:{world.server.port})"


def test_no_login_without_the_storage_unless_allowed(world: World) -> None:
    """An unreachable storage means no session; `login_without_storage` opens one all the same, and warns."""
    world.storage.broken = {"load", "save", "now", "exclusive"}
    with pytest.raises(StorageError):
        world.provider().get()
    assert logins(world) == 0
    daring = world.provider(login_without_storage=True)
    token = daring.get()
    assert daring.get() is token
    assert logins(world) == 1
    world.events.expect("StorageLost", "StorageLost", "Warned", "LoggedIn")
    assert "logging in without the storage" in world.events.wait_for(Warned).reason


def test_a_token_that_could_not_be_saved_is_used(world: World) -> None:
    """A storage that fails between the grant and the save: the session is open, so its token is used, and warned of."""

    class FailsAtGrant(GatedTransport):
        def send(self, call: Call, timeout: float) -> Reply:
            reply = super().send(call, timeout)
            world.storage.broken = {"load", "save", "now"} - ({"now"} if once else set())
            return reply

    once = True
    transport = FailsAtGrant()
    transport.gate.set()
    provider = world.provider(transport=transport)
    token = provider.get()
    assert token.generation == 1
    assert provider.get() is token
    world.events.expect("LoggedIn", "Warned", "Warned")
    assert "could not be stored" in world.events.wait_for(Warned).reason
    assert logins(world) == 1


def test_a_lost_race_is_not_an_error(world: World) -> None:
    """Two providers of one storage: the second adopts what the first has, renewed or new, without a call."""
    first, second = world.provider(), world.provider()
    assert first.get() is second.get()
    world.events.expect("LoggedIn", "Adopted")
    newer = first.renew()
    assert second.reject(second.get())
    assert second.get() is newer
    assert (logins(world), renewals(world)) == (1, 1)


def test_a_renewal_beyond_the_allowance_is_throttled(world: World) -> None:
    """`renew` within the first minute after one says how long to wait; the old token stays."""
    provider = world.provider()
    provider.get()
    token = provider.renew()
    assert token.generation == 2
    with pytest.raises(Throttled, match="no more may be asked for") as caught:
        provider.renew()
    assert caught.value.retry_after == pytest.approx(60, abs=2)
    assert provider.get() is token


def test_a_renewal_that_fails_says_why(world: World) -> None:
    """`renew` names what the server did, this time and not some earlier time."""
    provider = world.provider()
    provider.get()
    world.server.inject(Fault("renewal", "status", status=503))
    with pytest.raises(Throttled, match="the server answered 503"):
        provider.renew()
    with pytest.raises(Throttled, match="no more may be asked for"):
        provider.renew()


def test_a_renewal_that_meets_a_flight_waits_for_its_own(world: World) -> None:
    """A flight that set out before the wish was known is not the answer to it."""
    transport = GatedTransport()
    transport.gate.set()
    provider = world.provider(transport=transport)
    token = provider.get()
    world.clock.advance(4200)
    world.server.inject(Fault("renewal", "status", status=503))
    transport.gate.clear()
    transport.arrived.clear()
    assert provider.get() is token
    assert transport.arrived.wait(10)
    outcomes: list[object] = []
    caller = threading.Thread(target=lambda: outcomes.extend(at_once(1, provider.renew)))
    caller.start()
    eventually(lambda: provider._keeper._replace)
    transport.gate.set()
    caller.join(10)
    assert [type(outcome) for outcome in outcomes] == [AccessToken]
    assert provider.get().generation == 2


def test_renewing_obeys_one_time_limit(world: World) -> None:
    """The timeout of `renew` is for all of it, and the renewal goes on after it."""
    transport = GatedTransport()
    transport.gate.set()
    provider = world.provider(transport=transport)
    provider.get()
    transport.gate.clear()
    with pytest.raises(TokenTimeout):
        provider.renew(timeout=0.02)
    transport.gate.set()
    world.events.wait_for(Renewed)
    world.settled(provider)
    world.clock.advance(61)
    assert provider.renew(timeout=None).generation == 3


def test_a_token_is_asked_for_as_often_as_flights_allow(world: World) -> None:
    """A token that is doubted again whenever it was renewed ends in `TokenTimeout`, not in an endless wait."""
    provider = world.provider()
    provider.get()

    approach = provider._keeper.approach(0.0, 30.0)
    provider.reject(provider._keeper.held.token)
    flights = 0

    def doubting() -> None:
        nonlocal flights
        for flight in approach:
            flight.settle(10)
            flights += 1
            provider._keeper.held.doubted = True
            provider._keeper.held.fresh_until = 0.0

    with pytest.raises(TokenTimeout, match="as often as it was renewed"):
        doubting()
    assert flights == 4
    world.settled(provider)
    token, flights = provider._keeper.held.token, 0
    for flight in provider._keeper.renewing(token):
        flight.settle(10)
        flights += 1
        provider._keeper._replace = token.generation  # somebody asks again and again
    assert flights == 4


def test_a_record_stays_whole_under_contention(world: World) -> None:
    """Somebody else who writes in between is not overwritten: the change is applied anew to what he wrote."""
    interfered: list[int] = []

    class Contended(FrailStorage):
        def save(self, key: str, record: Record) -> bool:
            if len(interfered) < 3:
                interfered.append(record.revision)
                return False
            return super().save(key, record)

    provider = world.provider(storage=Contended(clock=world.clock))
    assert provider.get().generation == 1
    assert len(interfered) == 3
