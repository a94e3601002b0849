"""Logins that the server will not have: tried once, told with their cause; and what must not be taken for such a refusal."""

import json
from typing import Any

import pytest
from core_tools import World, eventually
from values import TICKET, VALUE, at, json_reply

from tradovate_auth import (
    CaptchaRequired,
    LoginRefused,
    ProtocolError,
    Throttled,
    TradovateAuthError,
)
from tradovate_auth.events import Evicted, Held, Refused, RenewalFailed, Renewed
from tradovate_auth.testing.emulator import Fault
from tradovate_auth.transport import Call, Reply

WRONG = "Incorrect username or password."
BLAMED: dict[str, tuple[dict[str, Any], str]] = {
    "400 errorText": ({"status": 400, "payload": {"errorText": WRONG}}, WRONG),
    "403 errorText": ({"status": 403, "payload": {"errorText": "Access is denied"}}, "Access is denied"),
    "400 message": (
        {"status": 400, "payload": {"error": "x", "message": "Nothing matches."}},
        "Nothing matches.",
    ),
    "404 error": ({"status": 404, "payload": {"error": "No such user"}}, "No such user"),
    "421 error": ({"status": 421, "payload": {"error": "No such user"}}, "No such user"),
    "400 violations": (
        {"status": 400, "payload": {"violations": [{"constraint": "appId"}]}},
        "fields invalid: appId",
    ),
    "422 violations": ({"status": 422, "payload": {"violations": [{}]}}, "fields invalid: unnamed"),
    "400 JSON": ({"status": 400, "payload": {}}, "badly formed"),
}
blamed = pytest.mark.parametrize("name", BLAMED)


def fault(endpoint: str, name: str, **options: Any) -> Fault:
    """Return a fault that answers so."""
    return Fault(endpoint, "json", **{"times": None, **BLAMED[name][0], **options})


def refused_all_day(world: World, says: str) -> None:
    """Ask every ten minutes of a day, also with another provider, and be refused by what lies in the storage."""
    provider = world.provider()
    for _ in range(144):
        with pytest.raises(LoginRefused) as caught:
            provider.get()
        assert says in caught.value.message
        assert caught.value.retry_after is None
        world.clock.advance(600.0)
    with pytest.raises(LoginRefused):
        world.provider().get()


class TestOnce:
    """A login that was refused is not sent again (P§9.6)."""

    @blamed
    def test_a_login_that_is_blamed_under_any_4xx(self, world: World, name: str) -> None:
        """However often somebody asks: one login, no retry, the words of the server, until `reset()`."""
        world.server.inject(fault("login", name))
        refused_all_day(world, BLAMED[name][1])
        assert world.server.counts.logins == 1
        assert BLAMED[name][1] in world.events.wait_for(Refused).reason
        world.server.reset()
        provider = world.provider()
        provider.reset()
        assert provider.get().generation == 1

    @pytest.mark.parametrize("style", ["200", "400", "401", "403"])
    def test_a_wrong_password_in_every_style(self, world: World, style: str) -> None:
        """A wrong password is tried once, however the server reports it; the right one is another matter."""
        world.server.configure(refusal_style=style)
        wrong = world.provider(who={"password": "wrong"})
        for _ in range(50):
            with pytest.raises(LoginRefused):
                wrong.get()
            world.clock.advance(1800.0)
        assert world.server.counts.logins == 1
        assert world.provider().get().generation == 1

    @pytest.mark.parametrize("body", [b"", b"No such field"])
    def test_a_400_alone(self, world: World, body: bytes) -> None:
        """A 400 says by itself that the request is badly formed (P§3.2)."""
        world.server.inject(Fault("login", "status", status=400, payload=body, times=None))
        refused_all_day(world, "badly formed")
        assert world.server.counts.logins == 1

    def test_credentials_that_have_worked_before(self, world: World) -> None:
        """A status that blames the request is no throttling in disguise: no second try after an hour."""
        world.provider().get()
        world.server.revoke()
        world.clock.advance(5 * 3600.0)
        world.server.inject(fault("login", "403 errorText"))
        refused_all_day(world, "Access is denied")
        assert world.server.counts.logins == 2

    @pytest.mark.parametrize("payload", [b"<html>Blocked</html>", b"RBAC: access denied"])
    def test_a_proxys_403_is_no_refusal(self, world: World, payload: bytes) -> None:
        """What stands between us and the server knows nothing of the credentials: they are tried again later."""
        world.server.inject(Fault("login", "body", status=403, payload=payload))
        provider = world.provider()
        with pytest.raises(ProtocolError) as caught:
            provider.get()
        assert caught.value.retry_after == pytest.approx(900.0, abs=2)
        assert caught.value.advice == ProtocolError.default_advice
        assert ("access denied" in caught.value.message) is payload.startswith(b"RBAC")
        world.clock.advance(902.0)
        assert provider.get().generation == 1


class TestRenewals:
    """A renewal under the same status: a session is not given up for it."""

    @pytest.mark.parametrize("name", [*BLAMED, "200 violations"])
    def test_a_renewal_that_is_blamed_costs_nothing(self, world: World, name: str) -> None:
        """Only 401, and 200 with a text, say that a session is gone: here the token lives on, and is renewed later."""
        provider = world.provider()
        token = provider.get()
        world.clock.advance(4200.0)
        answer = (
            BLAMED["422 violations"][0] | {"status": 200} if name == "200 violations" else BLAMED[name][0]
        )
        world.server.inject(Fault("renewal", "json", **answer))
        assert provider.get() is token
        failed = world.events.wait_for(RenewalFailed)
        world.settled(provider)
        if name in BLAMED:
            assert BLAMED[name][1] in failed.reason
        assert provider.get() is token
        world.clock.advance(failed.retry_in + 1.0)
        provider.get()
        world.events.wait_for(Renewed)
        assert not world.events.of(Evicted)
        assert (world.server.counts.logins, world.server.counts.renewals) == (1, 2)

    def test_a_lapsed_token_is_offered_once(self, world: World) -> None:
        """Where the token has lapsed the blamed renewal was its last chance: one login follows."""
        provider = world.provider()
        provider.get()
        world.clock.advance(4900.0)
        world.server.inject(fault("renewal", "403 errorText"))
        assert provider.get().generation == 2
        assert (world.server.counts.logins, world.server.counts.renewals) == (2, 1)


class TestGrants:
    """A session that was opened is used."""

    @pytest.mark.parametrize("beside", [{"p-time": 0}, {"p-captcha": True}, {"p-ticket": "t", "p-time": 15}])
    def test_a_token_beside_a_penalty(self, world: World, beside: dict[str, object]) -> None:
        """What was granted is a token, by login and by renewal: no hold, and no second login that closes a session."""
        world.server.configure(extra_fields=beside)
        provider = world.provider()
        assert provider.get().generation == 1
        world.clock.advance(4200.0)
        provider.get()
        world.events.wait_for(Renewed)
        assert not world.events.of(Held)
        assert (world.server.counts.logins, world.server.counts.renewals) == (1, 1)


class Slow:
    """Asks to slow down for two hours, and then grants."""

    def __init__(self, world: World) -> None:
        self.calls: list[Call] = []
        self._clock = world.clock

    def send(self, call: Call, timeout: float) -> Reply:
        """See `Transport.send`."""
        self.calls.append(call)
        if len(self.calls) == 1:
            return json_reply({"p-ticket": TICKET, "p-time": 15}, 429, {"Retry-After": "7200"})
        ends = at(self._clock.time() + 4800.0).isoformat()
        return json_reply({"accessToken": VALUE, "expirationTime": ends}, 200, {})


class TestWaits:
    """`Retry-After` beside a captcha and beside a ticket."""

    @pytest.mark.parametrize(("header", "wait"), [("7200", 7200.0), ("60", 3600.0), ("999999", 86_400.0)])
    @pytest.mark.parametrize("endpoint", ["login", "renewal"])
    def test_a_captcha(self, world: World, endpoint: str, header: str, wait: float) -> None:
        """A longer wait than the hour is obeyed, a day at most, by every account of the machine; a shorter one is not."""
        payload = {"p-ticket": "t", "p-time": 15, "p-captcha": True}
        answer = Fault(endpoint, "json", status=429, payload=payload, headers={"Retry-After": header})
        provider = world.provider()
        if endpoint == "renewal":
            provider.get()
            world.clock.advance(4200.0)
            world.server.inject(answer)
            provider.get()
            held = world.events.wait_for(Held)
            assert held.seconds == pytest.approx(wait, abs=2)
            world.settled(provider)
            world.clock.advance(700.0)
            wait -= 700.0
        else:
            world.server.inject(answer)
        world.server.add_user("neighbour", "secret")
        for who in ({}, {"name": "neighbour", "password": "secret"}):
            with pytest.raises(CaptchaRequired) as caught:
                world.provider(who=who).get()
            assert caught.value.retry_after == pytest.approx(wait, abs=2)
        before = world.server.counts.logins
        world.clock.advance(wait - 60.0)
        with pytest.raises(CaptchaRequired):
            provider.get()
        assert world.server.counts.logins == before
        world.clock.advance(62.0)
        assert provider.get()

    def test_a_penalty(self, world: World) -> None:
        """The ticket is redeemed after the longer of both waits, with the identical body."""
        transport = Slow(world)
        provider = world.provider(transport=transport)
        with pytest.raises(Throttled) as caught:
            provider.get(timeout=60.0)
        assert type(caught.value) is Throttled
        assert caught.value.retry_after == pytest.approx(7200.0, abs=2)
        world.clock.advance(7100.0)
        with pytest.raises(Throttled):
            provider.get(timeout=60.0)
        assert len(transport.calls) == 1
        world.clock.advance(102.0)
        assert provider.get().generation == 1
        first, second = (json.loads(call.body or b"") for call in transport.calls)
        assert second == {**first, "p-ticket": TICKET}

    def test_a_shorter_wait_than_the_penaltys(self, world: World) -> None:
        """The penalty's own wait stands where it is the longer one."""
        world.server.inject(
            Fault("login", "json", payload={"p-ticket": "t", "p-time": 600}, headers={"Retry-After": "5"})
        )
        with pytest.raises(Throttled) as caught:
            world.provider().get(timeout=60.0)
        assert caught.value.retry_after == pytest.approx(600.0, abs=2)

    def test_a_penalty_on_a_renewal(self, world: World) -> None:
        """A renewal waits as long, and carries no ticket."""
        provider = world.provider()
        provider.get()
        world.clock.advance(4200.0)
        world.server.inject(
            Fault("renewal", "json", payload={"p-ticket": "t", "p-time": 15}, headers={"Retry-After": "300"})
        )
        provider.get()
        held = world.events.wait_for(Held)
        assert held.seconds == pytest.approx(300.0, abs=2)
        world.settled(provider)
        world.clock.advance(305.0)
        provider.get()
        world.events.wait_for(Renewed)
        assert all("ticket" not in call.url for call in world.transport.calls)


ADVISED = {
    "locked": ({"userStatus": "TemporaryLocked"}, ProtocolError, "unlocked"),
    "e-mail": ({"userStatus": "UnconfirmedEmail", "userId": 1}, ProtocolError, "link"),
    "closed": ({"userStatus": "Closed", "errorText": "Account closed"}, LoginRefused, "support"),
    "violations": ({"violations": [{"constraint": "appId"}]}, LoginRefused, "Correct the fields"),
    "host": ({"errorText": "This endpoint should be called on x"}, LoginRefused, "environment"),
    "second factor": ({"mfaRequired": True}, ProtocolError, ProtocolError.default_advice),
    "password": ({"errorText": WRONG}, LoginRefused, LoginRefused.default_advice),
}


@pytest.mark.parametrize("name", ADVISED)
def test_the_advice_is_that_for_the_cause(world: World, name: str) -> None:
    """Whoever asks is told what to do about this answer: the caller who met it, and one who finds it in the storage."""
    payload, kind, says = ADVISED[name]
    world.server.inject(Fault("login", "json", payload=payload))
    for _ in range(2):
        with pytest.raises(TradovateAuthError) as caught:
            world.provider().get()
        assert type(caught.value) is kind
        assert says in caught.value.advice
    assert world.server.counts.logins == 1


ODD = {"password": 'pa"ss', "sec": "back\\slash"}
"""Secrets that look otherwise in JSON."""


class Echo:
    """Asks to slow down, and from then on repeats what it is sent; or grants a token first, and repeats it afterwards."""

    def __init__(self, first: dict[str, object], status: int, *, as_json: bool) -> None:
        self.first: dict[str, object] | None = first
        self.status = status
        self.as_json = as_json
        self.calls = 0

    def send(self, call: Call, timeout: float) -> Reply:
        """See `Transport.send`."""
        self.calls += 1
        if self.first is not None:
            answer, self.first = self.first, None
            return Reply(200, {}, json.dumps(answer).encode())
        said = f"cannot read {(call.body or b'').decode()} {call.headers.get('Authorization', '')}"
        return Reply(
            self.status, {}, json.dumps({"message": said}).encode() if self.as_json else said.encode()
        )


def everything_shown(world: World, *errors: TradovateAuthError) -> str:
    """Return what anybody can read of what happened, and what lies in the storage of refusals and holds."""
    ledgers = [record.ledger for record in world.storage._records.values()]
    kept = [latch.text for ledger in ledgers for latch in ledger.latches]
    kept += [ledger.hold.reason for ledger in ledgers if ledger.hold is not None]
    told = [*world.events.all, *errors]
    return " ".join([*map(repr, told), *map(str, told), *kept])


class TestEchoes:
    """A server that answers with our own request."""

    @pytest.mark.parametrize("as_json", [True, False])
    @pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 500])
    def test_a_login(self, world: World, status: int, *, as_json: bool) -> None:
        """Neither password nor secret nor ticket is told or stored, as they are or as they were sent; other words are."""
        transport = Echo({"p-ticket": TICKET, "p-time": 1}, status, as_json=as_json)
        who = {"name": "u", "app_id": None, "app_version": None, "cid": None, "device_id": None}
        provider = world.provider(transport=transport, who={**who, **ODD})
        with world.time_flies(), pytest.raises(TradovateAuthError) as caught:
            provider.get(timeout=None)
        eventually(lambda: world.events.all[-1:] == [provider._keeper.listener.last], "the last event")
        assert transport.calls >= 2
        shown = everything_shown(world, caught.value) + str(provider.status())
        assert ("cannot read" in shown) is (as_json or status != 200)
        for secret in (*ODD.values(), TICKET, "pa\\", 'ss"', "slash"):
            assert secret not in shown

    @pytest.mark.parametrize("as_json", [True, False])
    @pytest.mark.parametrize("status", [200, 400, 403, 404, 500])
    def test_a_renewal(self, world: World, status: int, *, as_json: bool) -> None:
        """The token is not told."""
        ends = at(world.clock.time() + 4800.0).isoformat()
        transport = Echo({"accessToken": VALUE, "expirationTime": ends}, status, as_json=as_json)
        provider = world.provider(transport=transport)
        provider.get()
        world.clock.advance(4200.0)
        provider.get()
        failed = world.events.wait_for(RenewalFailed)
        world.settled(provider)
        assert ("cannot read" in failed.reason) is (as_json or status != 200)
        assert VALUE not in everything_shown(world)
