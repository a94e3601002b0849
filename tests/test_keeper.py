"""The token in hand: who is served, and what a doubt, a probe or a refusal leads to."""

import pytest
from core_tools import GatedTransport, World, at_once, logins, renewals

from tradovate_auth import (
    AccessToken,
    ConfigurationError,
    LoginRefused,
    Throttled,
    TokenProvider,
    TokenTimeout,
)
from tradovate_auth._refusals import Refusals
from tradovate_auth.events import Evicted, RenewalFailed, Renewed
from tradovate_auth.transport import Call, Reply


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
    provider, token, gate = world.failing_renewal()
    assert provider.reject(token)
    gate.set()
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
