"""The two auth calls: what each answer does to the record, to the callers and to the next call."""

import json
import re
import threading
from dataclasses import replace

import pytest
from core_tools import FrailStorage, SocketTransport, World, eventually
from values import HOUR, at, token

from tradovate_auth import (
    AccessToken,
    Budget,
    CaptchaRequired,
    Environment,
    LockedOut,
    LoginRefused,
    ProtocolError,
    ProviderClosed,
    SessionEvicted,
    Throttled,
    TokenProvider,
    TransportError,
)
from tradovate_auth.events import (
    Event,
    Evicted,
    Held,
    HostsMoved,
    LoggedIn,
    Refused,
    RenewalFailed,
    Renewed,
    Warned,
)
from tradovate_auth.testing.emulator import Fault
from tradovate_auth.transport import Call, Reply

PAST = {"accessToken": "TEST-PAST", "expirationTime": "2001-01-01T00:00:00Z"}
FAULTS = {
    "503": Fault("renewal", "status", status=503),
    "page": Fault("renewal", "html"),
    "half a JSON": Fault("renewal", "truncate"),
    "broken JSON": Fault("renewal", "body", payload=b'{"accessToken": "TEST'),
    "no token": Fault("renewal", "json", payload={"expirationTime": "2099-01-01T00:00:00Z"}),
    "an end in the past": Fault("renewal", "json", payload=PAST),
    "dropped": Fault("renewal", "drop"),
    "dropped after processing": Fault("renewal", "drop_after"),
    "hang": Fault("renewal", "hang", then="close"),
}


def stale(world: World, provider: TokenProvider) -> AccessToken:
    """Log in, and let time pass until the token is due."""
    token = provider.get()
    world.clock.advance(4700)
    return token


@pytest.mark.parametrize("name", FAULTS)
def test_a_renewal_that_fails_changes_nothing_for_callers(world: World, name: str) -> None:
    """The old token lives on, nobody logs in, the event says why, the next try is spaced, and then all is well."""
    world.server.configure(renewal_token="same")
    provider = world.provider(timeout=0.2 if name == "hang" else 20.0)
    token = stale(world, provider)
    world.server.inject(FAULTS[name])
    assert provider.get() is token
    failed = world.events.wait_for(RenewalFailed)
    world.settled(provider)
    assert 0 <= failed.retry_in <= 15
    for _ in range(200):
        assert provider.get() is token
    world.settled(provider)
    assert world.server.counts.renewals == 1
    world.clock.advance(failed.retry_in + 0.001)
    assert provider.get() is token
    world.events.wait_for(Renewed)
    assert provider.get().generation == 2
    assert (world.server.counts.logins, world.server.counts.renewals) == (1, 2)


def test_the_tries_of_a_long_trouble_are_spaced(world: World) -> None:
    """While a server is in trouble, a token's last quarter of an hour brings a handful of renewals, not hundreds."""
    provider = world.provider()
    provider.get()
    world.server.inject(Fault("renewal", "status", status=503, times=None))
    world.clock.advance(3950)
    for _ in range(160):
        world.clock.advance(5)
        provider.get()
        world.settled(provider)
    assert 3 <= world.server.counts.renewals <= 12
    assert world.server.counts.logins == 1


def test_a_renewal_that_never_left_costs_nothing(world: World) -> None:
    """A server that cannot be reached leaves the budget alone, and whoever has a token does not wait for it."""
    provider = world.provider()
    token = stale(world, provider)
    world.server.stop()
    assert provider.get() is token
    world.events.wait_for(RenewalFailed)
    world.settled(provider)
    assert provider.status().renewals == 0
    world.server.start()
    world.clock.advance(20)
    provider.get()
    world.events.wait_for(Renewed)
    assert provider.status().renewals == 1


def test_a_penalty_on_a_renewal_is_invisible(world: World) -> None:
    """The renewal waits as long as the server wants and is then repeated plain; callers have the old token."""
    provider = world.provider()
    token = stale(world, provider)
    world.server.penalize("renewal", seconds=30)
    assert provider.get() is token
    held = world.events.wait_for(Held)
    world.events.wait_for(RenewalFailed)
    world.settled(provider)
    assert 29 <= held.seconds <= 31
    world.clock.advance(25)
    assert provider.get() is token
    world.settled(provider)
    assert world.server.counts.renewals == 1
    world.clock.advance(10)
    provider.get()
    world.events.wait_for(Renewed)
    assert (world.server.counts.logins, world.server.counts.renewals) == (1, 2)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("renewal", "json", payload={"p-ticket": "t", "p-time": 15, "p-captcha": True}),
        Fault("renewal", "status", status=423),
        Fault("renewal", "status", status=429, headers={"Retry-After": "7200"}),
    ],
    ids=["captcha", "423", "429"],
)
def test_a_renewal_that_the_server_forbids_is_a_hold_that_owners_do_not_notice(
    world: World, fault: Fault
) -> None:
    """Captcha, 423 and 429 stop every call for an hour; the living token is served to its end."""
    provider = world.provider()
    token = stale(world, provider)
    world.server.inject(fault)
    assert provider.get() is token
    held = world.events.wait_for(Held)
    world.events.wait_for(RenewalFailed)
    assert held.seconds == pytest.approx(7200 if "Retry-After" in fault.headers else 3600, abs=2)
    world.settled(provider)
    world.clock.advance(60)
    assert provider.get() is token
    world.settled(provider)
    world.clock.advance(60)
    with pytest.raises(Throttled) as caught:
        provider.get()
    assert caught.value.retry_after == pytest.approx(held.seconds - 120, abs=2)
    assert (world.server.counts.logins, world.server.counts.renewals) == (1, 1)


def test_a_penalty_on_a_login_is_waited_for(world: World) -> None:
    """The caller waits, and the identical body goes out again with the ticket, when its time has come."""
    world.server.penalize("login", seconds=15)
    with world.time_flies():
        token = world.provider().get()
    assert token.generation == 1
    first, second = (json.loads(call.body or b"") for call in world.transport.calls)
    assert second.pop("p-ticket")
    assert first == second
    assert (world.server.counts.logins, world.server.counts.logins_granted) == (2, 1)
    assert world.provider().status().failed_logins == 0


def test_a_ticket_is_redeemed_twice_at_most(world: World) -> None:
    """A server that answers every ticket with another penalty gets three calls in all, and is then left alone."""
    world.server.penalize("login", seconds=15, times=9)
    provider = world.provider()
    with world.time_flies(), pytest.raises(Throttled) as caught:
        provider.get(timeout=None)
    assert type(caught.value) is Throttled
    assert caught.value.retry_after is not None
    assert 600 <= caught.value.retry_after <= 901
    assert world.server.counts.logins == 3
    tickets = [json.loads(call.body or b"").get("p-ticket") for call in world.transport.calls]
    assert tickets[0] is None
    assert None not in tickets[1:]
    assert len(set(tickets)) == 3
    world.events.wait_for(Held, 3)
    for event, seconds in zip(world.events.of(Held), (15, 15, 900), strict=True):
        assert seconds <= event.seconds <= seconds + 1, (
            "never less than the server asked for, and not in step"
        )


def test_a_caller_without_the_time_is_told_at_once(world: World) -> None:
    """Whoever cannot outlast the penalty gets `Throttled` now; a patient one is served by the ticket."""
    world.server.penalize("login", seconds=15)
    provider = world.provider()
    with pytest.raises(Throttled) as caught:
        provider.get(timeout=5)
    assert caught.value.retry_after == pytest.approx(15, abs=1)
    assert world.server.counts.logins == 1
    with world.time_flies():
        assert provider.get(timeout=None).generation == 1
    assert world.server.counts.logins == 2


def test_another_process_in_the_same_penalty_is_told_at_once(world: World) -> None:
    """The penalty lies in the storage: whoever comes later, and cannot outlast it, is told without a call."""
    world.server.penalize("login", seconds=15)
    with pytest.raises(Throttled):
        world.provider().get(timeout=5)
    later = world.provider()
    with pytest.raises(Throttled) as caught:
        later.get(timeout=5)
    assert caught.value.retry_after == pytest.approx(15, abs=1)
    assert world.server.counts.logins == 1
    with world.time_flies():
        assert later.get(timeout=None).generation == 1
    assert world.server.counts.logins == 2


class Scripted:
    """Grants the first call a token of 80 minutes by the clock, and answers every other with the same body."""

    def __init__(self, world: World, body: str, *, grants: bool) -> None:
        self.calls: list[Call] = []
        self._world = world
        self._body = body
        self._grants = grants

    def send(self, call: Call, timeout: float) -> Reply:
        """See `Transport.send`."""
        self.calls.append(call)
        if self._grants and len(self.calls) == 1:
            ends = at(self._world.clock.time() + 4800).isoformat()
            return Reply(200, {}, json.dumps({"accessToken": "granted", "expirationTime": ends}).encode())
        return Reply(200, {}, self._body.encode())


@pytest.mark.parametrize("body", ['{"p-time": 1}', '{"p-ticket": "t", "p-time": 1}'])
def test_a_penalty_on_a_login_ends_after_two_repetitions(world: World, body: str) -> None:
    """With a ticket or without one: three calls, a hold of a quarter of an hour, and then one at a time."""
    transport = Scripted(world, body, grants=False)
    provider = world.provider(transport=transport)
    with world.time_flies(), pytest.raises(Throttled) as caught:
        provider.get(timeout=None)
    assert len(transport.calls) == 3
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 300
    world.clock.advance(902)
    with pytest.raises(Throttled):
        provider.get(timeout=None)
    assert len(transport.calls) == 4


def test_a_penalty_on_the_renewal_of_a_lapsed_token_ends_in_a_login(world: World) -> None:
    """Repeated plain twice; then it counts as offered, and after the hold comes the login, with budget left for others."""
    transport = Scripted(world, '{"p-time": 1, "p-ticket": "t"}', grants=True)
    provider = world.provider(transport=transport)
    provider.get()
    world.clock.advance(4900)
    with world.time_flies(), pytest.raises(Throttled) as caught:
        provider.get(timeout=None)
    assert type(caught.value) is Throttled
    assert [call.method for call in transport.calls] == ["POST", "GET", "GET", "GET"]
    world.clock.advance(902)
    with pytest.raises(Throttled):
        provider.get(timeout=None)
    assert [call.method for call in transport.calls[4:]] == ["POST"]


def test_machines_do_not_ask_in_step_after_a_penalty(world: World) -> None:
    """Three of them got the same penalty at the same moment: each waits for a little longer, none for less."""
    world.server.inject(Fault("login", "json", payload={"p-ticket": "t", "p-time": 15}, times=3))
    for _ in range(3):
        with pytest.raises(Throttled):
            world.provider(storage=FrailStorage(clock=world.clock)).get(timeout=5)
    world.events.wait_for(Held, 3)
    waits = {event.seconds for event in world.events.of(Held)}
    assert len(waits) == 3
    assert all(15 <= seconds <= 16 for seconds in waits)


def test_a_penalty_long_after_another_is_no_repetition(world: World) -> None:
    """Three in all, the last one more than an hour after the others were over: it lasts as long as the server says."""
    world.server.inject(Fault("login", "json", payload={"p-ticket": "t", "p-time": 15}, times=3))
    provider = world.provider()
    for pause in (20, 3700, 0):
        with pytest.raises(Throttled):
            provider.get(timeout=5)
        world.clock.advance(pause)
    world.events.wait_for(Held, 3)
    assert all(event.seconds <= 16 for event in world.events.of(Held))


def test_a_ticket_is_redeemed_with_the_body_that_it_was_given_for(world: World) -> None:
    """Two API keys of a user share the wait, but not the ticket (P§4.1: the identical body)."""
    world.server.add_user("trader", world.server.credentials["password"])  # any API key, or none
    world.server.penalize("login", seconds=15)
    with pytest.raises(Throttled):
        world.provider().get(timeout=1)
    other = world.provider(who={"cid": 9})
    with world.time_flies():
        other.get(timeout=None)
    bodies = [json.loads(call.body or b"{}") for call in world.transport.calls]
    assert [body.get("p-ticket") for body in bodies] == [None, None]


class Overtaken(SocketTransport):
    """While its second answer is on the way, another process stores a token of its own."""

    def __init__(self, world: World, ends: float) -> None:
        super().__init__()
        self.newer = token(
            value="of another", generation=7, issued_at=at(world.clock.time()), expires_at=at(ends)
        )
        self.storage = world.storage

    def send(self, call: Call, timeout: float) -> Reply:
        """See `Transport.send`."""
        reply = super().send(call, timeout)
        if len(self.calls) == 2:
            [(key, record)] = [each for each in self.storage._records.items() if each[1].tokens]
            tokens = dict.fromkeys(record.tokens, self.newer)
            newest = replace(record, revision=record.revision + 1, generation=7, tokens=tokens)
            assert self.storage.save(key, newest)
        return reply


def test_a_grant_that_comes_late_overwrites_nothing_newer(world: World) -> None:
    """A leader that slept over its lease: the token that ends later, by the server's word, is the newer one, and is used."""
    transport = Overtaken(world, world.clock.time() + 9 * HOUR)
    provider = world.provider(transport=transport)
    provider.get()
    world.clock.advance(61)
    assert provider.renew() == transport.newer
    world.settled(provider)
    record = next(record for record in world.storage._records.values() if record.tokens)
    assert list(record.tokens.values()) == [transport.newer]
    assert len(record.ledger.renewals) == 1
    world.events.expect("LoggedIn", "Warned", "Adopted")
    assert "so late" in world.events.of(Warned)[0].reason


def test_a_grant_that_ends_later_wins(world: World) -> None:
    """The server's word counts, whoever comes last to the storage."""
    transport = Overtaken(world, world.clock.time() + 600.0)
    provider = world.provider(transport=transport)
    provider.get()
    world.clock.advance(61)
    assert provider.renew().generation == 8
    world.events.expect("LoggedIn", "Renewed")


def test_a_late_refusal_is_no_eviction(world: World) -> None:
    """A renewal that is refused because another process has renewed the token meanwhile speaks of nobody else's login."""
    transport = Overtaken(world, world.clock.time() + 9 * HOUR)
    provider = world.provider(transport=transport)
    provider.get()
    world.clock.advance(61)
    world.server.revoke()
    assert provider.renew() == transport.newer
    world.events.expect("LoggedIn", "RenewalFailed", "Adopted")
    assert world.server.counts.logins == 1


def test_closing_ends_the_wait_for_a_penalty(world: World) -> None:
    """`close` does not sit a penalty out: those who wait for it get `ProviderClosed`."""
    world.server.penalize("login", seconds=15)
    provider = world.provider()
    outcome: list[Exception] = []

    def wait() -> None:
        try:
            provider.get(timeout=None)
        except Exception as error:  # noqa: BLE001  # looked at below
            outcome.append(error)

    caller = threading.Thread(target=wait)
    caller.start()
    world.events.wait_for(Held)
    eventually(lambda: provider._keeper.flight.current() is not None)
    provider.close()
    caller.join(10)
    assert [type(error) for error in outcome] == [ProviderClosed]
    assert world.server.counts.logins == 1


@pytest.mark.parametrize(
    ("fault", "error", "wait"),
    [
        (
            Fault("login", "json", payload={"p-ticket": "t", "p-time": 15, "p-captcha": "true"}),
            CaptchaRequired,
            3600,
        ),
        (Fault("login", "status", status=423), LockedOut, 3600),
        (Fault("login", "status", status=429, headers={"Retry-After": "60"}), LockedOut, 3600),
        (Fault("login", "status", status=429, headers={"Retry-After": "9000"}), LockedOut, 9000),
        (Fault("login", "json", payload={"mfa": "code"}), ProtocolError, 900),
        (Fault("login", "status", status=404, payload=b""), ProtocolError, 900),
    ],
    ids=["captcha", "423", "429", "429 for long", "second factor", "404"],
)
def test_a_login_that_meets_a_wall_is_a_typed_hold(
    world: World, fault: Fault, error: type[Throttled], wait: float
) -> None:
    """One call, a typed error that says how long, the same one to everybody until then, and then one more try."""
    world.server.inject(fault)
    provider = world.provider()
    with pytest.raises(error) as caught:
        provider.get()
    assert caught.value.retry_after == pytest.approx(wait, abs=2)
    world.clock.advance(wait / 2)
    with pytest.raises(error) as caught:
        world.provider().get()
    assert caught.value.retry_after == pytest.approx(wait / 2, abs=2)
    assert world.server.counts.logins == 1
    world.clock.advance(wait / 2 + 2)
    assert provider.get().generation == 1
    assert world.server.counts.logins == 2


@pytest.mark.parametrize("kind", ["status", "drop_after", "html", "late"])
def test_a_login_whose_answer_is_lost_is_repeated_once_and_then_held(world: World, kind: str) -> None:
    """The lost answer may have opened a session: one more try, then five minutes' silence, doubling; each try counts."""
    status = 500 if kind == "status" else None
    world.server.inject(Fault("login", kind, status=status, times=3))  # type: ignore[arg-type]  # a kind
    provider = world.provider(timeout=0.1 if kind == "late" else 20.0)
    with world.time_flies(), pytest.raises(TransportError) as caught:
        provider.get()
    world.server.release()
    assert caught.value.retry_after == pytest.approx(300, abs=60)
    status_now = provider.status()
    assert (status_now.failed_logins, world.server.counts.logins) == (2, 2)
    world.clock.advance(310)
    with pytest.raises(TransportError) as caught:
        provider.get()
    world.server.release()
    assert caught.value.retry_after == pytest.approx(600, abs=2)
    assert world.server.counts.logins == 3


def test_a_login_whose_answer_is_lost_once_is_granted_the_second_time(world: World) -> None:
    """The one repetition is enough for a server that stumbled; what was lost stays counted as a failed login."""
    world.server.inject(Fault("login", "drop_after"))
    provider = world.provider()
    with world.time_flies():
        assert provider.get().generation == 1
    world.events.expect("Warned", "LoggedIn")
    assert (provider.status().failed_logins, provider.status().logins) == (1, 1)
    assert world.server.counts.logins == 2


def test_a_server_that_cannot_be_reached_costs_nothing(world: World) -> None:
    """About ten seconds of patience, then `TransportError`; nothing was sent, so nothing was spent."""
    world.server.stop()
    provider = world.provider()
    started = world.clock.elapsed()
    with world.time_flies(0.05), pytest.raises(TransportError) as caught:
        provider.get()
    assert not caught.value.sent
    assert 5 <= world.clock.elapsed() - started <= 15
    assert len(world.transport.calls) > 5
    status = provider.status()
    assert (status.failed_logins, status.logins, status.hold) == (0, 0, None)
    world.server.start()
    world.clock.advance(2)
    assert provider.get().generation == 1


def test_a_server_that_comes_back_in_time_is_waited_for(world: World) -> None:
    """A connection that cannot be made is tried again within the same call: the caller only notices the delay."""
    world.server.stop()
    with world.time_flies(0.02):

        def start() -> None:
            eventually(lambda: len(world.transport.calls) > 2)
            world.server.start()

        starter = threading.Thread(target=start)
        starter.start()
        assert world.provider().get().generation == 1
        starter.join()
    assert world.server.counts.logins == 1


def test_an_unreachable_server_is_an_error_for_whoever_holds_a_lapsed_token(world: World) -> None:
    """With a token that has lapsed nobody is served: the offer of renewal is tried with patience, then reported."""
    provider = world.provider()
    provider.get()
    world.clock.advance(4900)
    world.server.stop()
    with world.time_flies(0.05), pytest.raises(TransportError):
        provider.get()
    assert provider.status().renewals == 0


def test_refused_credentials_are_tried_once(world: World) -> None:
    """One call; after that, and after a restart, the answer comes from the latch. It names neither password nor secret."""
    provider = world.provider(who={"password": "wrong horse"})
    for asker in (provider, provider, world.provider(who={"password": "wrong horse"})):
        with pytest.raises(LoginRefused, match="Incorrect username or password"):
            asker.get()
    assert world.server.counts.logins == 1
    world.events.expect("Refused")
    assert provider.status().failed_logins == 1
    assert world.provider().get().generation == 1


def test_a_server_that_echoes_a_secret_is_not_quoted(world: World) -> None:
    """Error texts are scrubbed of the password, the secret and the token, in errors, events and the stored record."""
    password = world.server.credentials["password"]
    echo = {"errorText": f"bad password {password} and {world.server.credentials['sec']}"}
    world.server.inject(Fault("login", "json", payload=echo))
    provider = world.provider()
    with pytest.raises(LoginRefused) as caught:
        provider.get()
    shown = f"{caught.value} {caught.value!r} {world.events.wait_for(Refused)} {provider.status()}"
    assert "bad password *** and ***" in shown
    assert password not in shown
    provider.reset()
    token = stale(world, provider)
    world.server.inject(Fault("renewal", "json", status=401, payload={"message": f"{token.value} is over"}))
    provider.get()
    assert world.events.wait_for(Evicted).reason == "*** is over"


def test_credentials_that_worked_before_are_tried_again_after_an_hour(world: World) -> None:
    """A refusal with status 200 may be throttling in disguise: one more try in an hour, and then in two."""
    provider = world.provider(login="always")
    provider.get()
    world.clock.advance(9000)
    world.server.inject(Fault("login", "json", payload={"errorText": "Incorrect"}, times=2))
    with pytest.raises(LoginRefused) as caught:
        provider.get()
    assert caught.value.retry_after == pytest.approx(3600, abs=2)
    world.clock.advance(3601)
    with pytest.raises(LoginRefused) as caught:
        provider.get()
    assert caught.value.retry_after == pytest.approx(7200, abs=2)
    world.clock.advance(7201)
    assert provider.get().generation == 2


def test_an_early_end_of_the_session_is_an_eviction(world: World) -> None:
    """A renewal refused before the expiry: `Evicted`, one login; within ten minutes again: a hold of ten, then twenty."""
    provider = world.provider()
    provider.get()
    world.server.revoke()
    world.clock.advance(4700)
    provider.get()
    world.events.wait_for(Evicted)
    assert provider.get().generation == 2
    assert world.server.counts.logins == 2
    for seconds in (600, 1200):
        world.clock.advance(120)
        world.server.revoke()
        assert provider.reject(provider.get())
        with pytest.raises(SessionEvicted) as caught:
            provider.get()
        assert caught.value.retry_after == pytest.approx(seconds, abs=2)
        assert provider.status().hold == "another client keeps closing our session"
        world.clock.advance(seconds + 1)
        provider.get()
    assert world.server.counts.logins == 4
    world.events.wait_for(Held, 2)
    assert [round(event.seconds) for event in world.events.of(Held)] == [600, 1200]


def test_a_token_that_ended_by_itself_was_not_evicted(world: World) -> None:
    """A lapsed token that the server refuses: no `Evicted`, a login, and no hold however often."""
    provider = world.provider()
    for generation in (1, 2, 3):
        assert provider.get().generation == generation
        world.clock.advance(4900)
    world.events.expect("LoggedIn", "RenewalFailed", "LoggedIn", "RenewalFailed", "LoggedIn")


def test_an_unknown_end_is_used_until_it_is_refused(world: World) -> None:
    """An expiry in the past on arrival: warned of, used, renewed after a minute and then at most every five."""
    world.server.configure(extra_fields={"expirationTime": "2001-01-01T00:00:00Z"})
    provider = world.provider()
    token = provider.get()
    assert not token.known_expiry
    world.events.expect("LoggedIn", "Warned")
    asked = []
    for _ in range(60):
        world.clock.advance(20)
        provider.get()
        world.settled(provider)
        asked.append(world.server.counts.renewals)
    assert asked[1] == 0
    assert 1 <= asked[20] <= 2
    assert 3 <= asked[-1] <= 4
    assert world.server.counts.logins == 1
    world.server.revoke()
    assert provider.reject(provider.get())
    provider.get()
    assert world.server.counts.logins == 2


def test_the_newest_grant_wins_also_if_it_ends_sooner(world: World) -> None:
    """The server has the last word on its own tokens; a shorter one is used, and warned of."""
    provider = world.provider()
    token = stale(world, provider)
    world.server.configure(lifetime=60.0)
    provider.get()
    warned = world.events.wait_for(Warned)
    assert warned.reason == "the new token ends no later than the one before it"
    world.settled(provider)
    newer = provider.get()
    assert newer.generation == 2
    assert newer.expires_at < token.expires_at


@pytest.mark.parametrize("ahead", [600.0, -600.0])
def test_a_server_with_another_clock_is_renewed_in_time(world: World, ahead: float) -> None:
    """Ten minutes ahead or behind: the `Date` of an answer corrects it, so the renewal is neither late nor early."""
    world.server.configure(clock_offset=ahead)
    provider = world.provider()
    token = provider.get()
    assert token.expires_at.timestamp() == pytest.approx(world.clock.time() + 4800 + ahead, abs=1)
    assert token.lifetime == pytest.approx(4800, abs=2)
    world.clock.advance(3890)
    assert provider.get() is token
    world.settled(provider)
    assert world.server.counts.renewals == 0
    world.clock.advance(200)
    provider.get()
    world.events.wait_for(Renewed)
    assert world.server.counts.logins == 1
    assert world.server.live_sessions == 1


def test_an_answer_without_a_date_leaves_the_clock_alone(world: World) -> None:
    """Without a `Date` the last known difference stands."""
    world.server.configure(send_date=False)
    token = world.provider().get()
    assert token.lifetime == pytest.approx(4800, abs=0.01)


def test_assigned_hosts_are_learnt_and_told(world: World) -> None:
    """`HostsMoved` comes after the grant that brought the hosts, once; the renewal goes to the assigned host."""
    world.server.configure(api_hosts={"demo": "localhost", "mdDemo": "md.localhost"})
    provider = world.provider()
    stale(world, provider)
    provider.get()
    world.events.wait_for(Renewed)
    world.events.expect("LoggedIn", "HostsMoved", "Renewed")
    port = world.server.port
    assert world.events.wait_for(HostsMoved).hosts["mdDemo"] == f"md.localhost:{port}"
    assert world.transport.calls[-1].url == f"http://localhost:{port}/v1/auth/renewaccesstoken"


def test_a_renewal_falls_back_from_an_assigned_host_that_is_gone(world: World) -> None:
    """No connection to the assigned host: the one that everybody starts from still knows the session."""
    world.server.configure(api_hosts={"demo": "127.0.0.3"})
    provider = world.provider()
    stale(world, provider)
    provider.get()
    world.events.wait_for(Renewed)
    assert [re.sub(r"http://([^:]+):.*", r"\1", call.url) for call in world.transport.calls] == [
        "127.0.0.1",
        "127.0.0.3",
        "127.0.0.1",
    ]


def test_no_event_shows_a_secret(world: World) -> None:
    """Whatever happens to a session, neither `str` nor `repr` of an event holds a token, the password or the secret."""
    provider = world.provider()
    secrets = [provider.get().value, world.server.credentials["password"], world.server.credentials["sec"]]
    world.clock.advance(4100)
    world.server.inject(Fault("renewal", "status", status=503))
    provider.get()
    world.events.wait_for(RenewalFailed)
    world.settled(provider)
    world.clock.advance(400)
    provider.get()
    world.events.wait_for(Renewed)
    world.settled(provider)
    secrets.append(provider.get().value)
    shown = " ".join(f"{event} {event!r}" for event in world.events.all)
    assert len(shown) > 200
    assert not [secret for secret in secrets if secret in shown]


def test_the_hour_of_a_url_environment_is_short(world: World) -> None:
    """With an hour of a minute, the holds shrink in proportion: what takes an hour in production takes that minute."""
    world.server.inject(Fault("login", "status", status=423))
    environment = Environment(world.server.url, hour=60.0)
    provider = world.provider(environment=environment)
    with pytest.raises(LockedOut) as caught:
        provider.get()
    assert caught.value.retry_after == pytest.approx(60, abs=1)


def test_spent_logins_are_throttled(world: World) -> None:
    """The budget of granted logins is checked before the call; the error says when the next is safe."""
    provider = world.provider(budget=Budget(logins=2))
    for _ in range(2):
        token = provider.get()
        provider.report(token, 200)
        world.server.revoke()
        world.clock.advance(660)
        assert provider.reject(token)
    with pytest.raises(Throttled, match="no more are safe") as caught:
        provider.get()
    assert caught.value.retry_after == pytest.approx(3600 - 1320, abs=2)
    assert world.server.counts.logins == 2


def test_a_foreign_exception_of_a_transport_is_a_lost_call(world: World) -> None:
    """A transport that raises anything else counts as one whose request may have left, and is not quoted."""

    class Broken:
        calls = 0

        def send(self, call: Call, timeout: float) -> Reply:
            self.calls += 1
            raise ZeroDivisionError((call.body or b"").decode())

    broken = Broken()
    provider = world.provider(transport=broken)
    with world.time_flies(), pytest.raises(TransportError) as caught:
        provider.get()
    assert broken.calls == 2
    warned = world.events.wait_for(Warned)
    assert "ZeroDivisionError" in warned.reason
    for text in (str(caught.value), str(warned)):
        assert world.server.credentials["password"] not in text


def test_granted_events_tell_generation_and_end(world: World) -> None:
    """`LoggedIn` carries what a trader wants in a log: which token, and until when."""
    token = world.provider().get()
    event: Event = world.events.wait_for(LoggedIn)
    assert "generation 1, ends 2027-01-15T09:20:00+00:00 (trader at 127.0.0.1:" in str(event)
    assert token.expires_at.isoformat(timespec="seconds") in str(event)


@pytest.mark.parametrize("ahead", [73.5, -2 * HOUR, 2 * HOUR])
def test_the_first_refusals_count_by_the_servers_clock(world: World, ahead: float) -> None:
    """The first login is entered before anything is known of the server's clock: it leaves the hour when the others do."""
    world.server.configure(clock_offset=ahead)
    provider = world.provider(who={"password": "wrong"})
    for _ in range(3):
        with pytest.raises(LoginRefused):
            provider.get()
        provider.reset()
    entries = provider._account.load().ledger.failed_logins
    assert len(entries) == 3
    assert max(entries) - min(entries) <= 1.0
    world.clock.advance(2)
    with pytest.raises(Throttled) as caught:
        provider.get()
    assert caught.value.retry_after == pytest.approx(HOUR - 2, abs=2)


def test_what_is_odd_about_a_user_is_told_in_a_line_without_secrets(world: World) -> None:
    """The server's own words may hold what it was sent; they are cut to a line's length after that was taken out."""
    password = world.server.credentials["password"]
    ends = at(world.clock.time() + 4800).isoformat()
    answer = {"accessToken": "granted", "expirationTime": ends, "userStatus": f"{password} {'x' * 500}"}

    class Odd(SocketTransport):
        def send(self, call: Call, timeout: float) -> Reply:
            """See `Transport.send`."""
            return Reply(200, {}, json.dumps(answer).encode())

    world.provider(transport=Odd()).get()
    told = world.events.wait_for(Warned).reason
    assert "*** xxx" in told
    assert password not in told
    assert len(told) == 200


def test_an_answer_that_nobody_knows_is_asked_for_less_and_less_often(world: World) -> None:
    """Each try may send the trader a code: the pause doubles up to a day, in all processes, until a login is granted."""
    world.server.configure(login_step="mfa")
    waits = []
    for _ in range(9):
        with pytest.raises(ProtocolError) as caught:
            world.provider(on_event=None).get()
        assert caught.value.retry_after is not None
        waits.append(round(caught.value.retry_after / 60))
        world.clock.advance(caught.value.retry_after + 1)
    assert waits == [15, 30, 60, 120, 240, 480, 960, 1440, 1440]
    world.server.configure(login_step="none")
    assert world.provider().get().generation == 1
    world.server.configure(login_step="mfa")
    world.server.revoke()
    provider = world.provider(on_event=None)
    provider.reject(provider.get())
    with pytest.raises(ProtocolError) as caught:
        provider.get()
    assert caught.value.retry_after == pytest.approx(15 * 60, abs=2)


def test_a_human_ends_the_wait_for_an_answer_that_nobody_knows(world: World) -> None:
    """The trader has approved the device: after `reset` the next call logs in."""
    world.server.configure(login_step="mfa")
    provider = world.provider()
    with pytest.raises(ProtocolError):
        provider.get()
    world.server.configure(login_step="none")
    provider.reset()
    assert provider.get().generation == 1


def test_a_host_outside_the_domains_is_told(world: World) -> None:
    """The server assigns a host that may not be trusted: it is not used, and somebody hears why calls may fail."""
    world.server.configure(api_hosts={"demo": "demo.evil.example"})
    provider = world.provider()
    provider.get()
    reason = world.events.wait_for(Warned).reason
    assert "'demo.evil.example' as 'demo'" in reason
    assert "outside Environment.domains" in reason
    assert provider.url("demo", "/x").startswith(world.server.url)


def test_a_penalty_in_between_changes_no_wait(world: World) -> None:
    """Each login is first told to wait, and then answered with something that nobody knows: the pause doubles all the same."""
    world.server.configure(login_step="mfa")
    waits = []
    for _ in range(4):
        world.server.penalize("login", seconds=2)
        with world.time_flies(0.05), pytest.raises(ProtocolError) as caught:
            world.provider(on_event=None).get(timeout=None)
        assert caught.value.retry_after is not None
        waits.append(round(caught.value.retry_after / 60))
        world.clock.advance(caught.value.retry_after + 3600)
    assert waits == [15, 30, 60, 120]
