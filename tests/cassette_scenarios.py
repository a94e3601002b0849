"""The scenarios on the cassettes: how each is brought about on the emulator, and what comes of it.

A `Scenario` is one auth call and the verdict on its answer; a story is a caller with an adapter, and what he sees. Recording:
see cassettes/README.md.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from core_tools import Recorder, World
from stacks import Answer, Body, Client

from tradovate_auth import AccessToken, Throttled, TokenProvider, _wire
from tradovate_auth.events import Evicted, Held, LoggedIn, RenewalFailed, Renewed
from tradovate_auth.testing import Emulator
from tradovate_auth.testing.emulator import Fault

__all__ = ["SCENARIOS", "STORIES", "Scenario", "Stage", "token_of"]

MOVED: Final = {"demo": "127.0.0.2", "mdDemo": "127.0.0.3"}
ACCOUNTS: Final = "/account/list"
ORDERS: Final = "/order/placeorder"


@dataclass(frozen=True)
class Scenario:
    """One exchange: what the server is told to do, whether the call is a renewal, and the verdict that it must lead to."""

    arrange: Callable[[Emulator], object]
    means: type[_wire.Verdict]
    renewal: bool = False
    fields: Mapping[str, object] = field(default_factory=dict)
    """What the verdict says in its fields."""
    details: Mapping[str, object] = field(default_factory=dict)
    """What a token's details say."""


def _rules(**rules: Any) -> Callable[[Emulator], object]:
    return lambda server: server.configure(**rules)


def _penalty(endpoint: Any = "login", **options: Any) -> Callable[[Emulator], object]:
    return lambda server: server.penalize(endpoint, **options)


def _fault(endpoint: str, kind: Any, **options: Any) -> Callable[[Emulator], object]:
    return lambda server: server.inject(Fault(endpoint, kind, **options))


def _lock_out(status: int, **rules: Any) -> Callable[[Emulator], object]:
    def arrange(server: Emulator) -> None:
        server.configure(**rules)
        server.lock_out(status, 7200.0)

    return arrange


def _expiry(**rules: Any) -> Scenario:
    """A login whose token ends at 09:20:00, however that is written."""
    return Scenario(_rules(**rules), _wire.Granted, fields={"expires_at": 1_800_000_000.0 + 4800.0})


_NOT_KNOWN: Final = {"known": False}
_LATER: Final = _wire.RetryAfter(7200.0)
SCENARIOS: Final[dict[str, Scenario]] = {
    "login-granted": Scenario(lambda _: None, _wire.Granted, fields={"user_id": 1001, "name": "trader"}),
    "login-granted-hosts": Scenario(_rules(api_hosts=MOVED), _wire.Granted, fields={"hosts": MOVED}),
    "login-granted-no-md-token": Scenario(
        _rules(omit_fields=("mdAccessToken",)), _wire.Granted, fields={"md_value": None}
    ),
    "login-granted-temporary-locked": Scenario(
        _rules(user_status="TemporaryLocked"), _wire.Granted, details={"userStatus": "TemporaryLocked"}
    ),
    "login-granted-temporarily-locked": Scenario(
        _rules(user_status="TemporarilyLocked"), _wire.Granted, details={"userStatus": "TemporarilyLocked"}
    ),
    "login-granted-leaked-password": Scenario(
        _rules(hibp_hint="PasswordCompromised"), _wire.Granted, details={"hibpHint": "PasswordCompromised"}
    ),
    "login-expiry-minutes": _expiry(fraction_digits=-1),
    "login-expiry-seconds": _expiry(fraction_digits=0),
    "login-expiry-nanoseconds": _expiry(fraction_digits=9),
    "login-expiry-offset": _expiry(expiry_offset_style="+00:00"),
    "login-expiry-naive": _expiry(expiry_offset_style="naive"),
    "login-expiry-missing": Scenario(
        _rules(omit_fields=("expirationTime",)), _wire.Faulty, fields=_NOT_KNOWN
    ),
    "login-refused-200": Scenario(lambda _: None, _wire.Refused, fields={"disguised": True}),
    "login-refused-401": Scenario(_rules(refusal_style="401"), _wire.Refused, fields={"disguised": False}),
    "login-refused-400": Scenario(_rules(refusal_style="400"), _wire.Refused, fields={"disguised": False}),
    "login-refused-403": Scenario(_rules(refusal_style="403"), _wire.Refused, fields={"disguised": False}),
    "login-badly-formed": Scenario(
        _fault("login", "status", status=400),
        _wire.Refused,
        fields={"text": "the server calls the request badly formed", "disguised": False},
    ),
    "login-page-403": Scenario(
        _fault("login", "html", status=403), _wire.Faulty, fields={"reason": "the server answered 403"}
    ),
    "login-unregistered-app": Scenario(
        lambda _: None, _wire.Refused, fields={"text": "The app is not registered"}
    ),
    "login-wrong-server": Scenario(
        _fault(
            "login", "json", payload={"errorText": "This endpoint should be called on demo.tradovateapi.com"}
        ),
        _wire.Refused,
    ),
    "login-violations": Scenario(_rules(login_step="violations"), _wire.Refused, fields={"disguised": False}),
    "login-second-factor": Scenario(_rules(login_step="mfa"), _wire.Faulty, fields=_NOT_KNOWN),
    "login-user-locked": Scenario(
        _rules(login_step="mfa", user_status="TemporaryLocked"),
        _wire.Faulty,
        fields={
            "reason": "the server calls this user 'TemporaryLocked': the answer holds neither a token nor an error",
            **_NOT_KNOWN,
        },
    ),
    "login-refused-closed": Scenario(
        _fault("login", "json", payload={"errorText": "Account closed", "userStatus": "Closed"}),
        _wire.Refused,
        fields={"text": "the server calls this user 'Closed': Account closed"},
    ),
    "login-granted-beside-penalty": Scenario(
        _rules(extra_fields={"p-time": 0, "p-captcha": True}), _wire.Granted, fields={"user_id": 1001}
    ),
    "login-penalty": Scenario(_penalty(), _wire.Penalty, fields={"seconds": 15.0}),
    "login-penalty-429": Scenario(
        _penalty(status=429, captcha=False), _wire.Penalty, fields={"seconds": 15.0}
    ),
    "login-captcha": Scenario(_penalty(captcha=True), _wire.Captcha),
    "login-captcha-text": Scenario(_penalty(captcha="true"), _wire.Captcha),
    "login-captcha-retry-after": Scenario(
        _fault("login", "json", status=429, payload={"p-captcha": True}, headers={"Retry-After": "7200"}),
        _wire.Captcha,
        fields={"retry_after": _LATER},
    ),
    "login-penalty-retry-after": Scenario(
        _fault(
            "login",
            "json",
            status=429,
            payload={"p-ticket": "ticket", "p-time": 15},
            headers={"Retry-After": "7200"},
        ),
        _wire.Penalty,
        fields={"seconds": 15.0, "retry_after": _LATER},
    ),
    "login-captcha-false-text": Scenario(_penalty(captcha="false"), _wire.Penalty),
    "login-locked-423": Scenario(
        _lock_out(423), _wire.LockedOut, fields={"status": 423, "retry_after": _wire.RetryAfter()}
    ),
    "login-locked-429": Scenario(
        _lock_out(429), _wire.LockedOut, fields={"status": 429, "retry_after": _wire.RetryAfter()}
    ),
    "login-locked-retry-seconds": Scenario(
        _lock_out(429, retry_after="seconds"), _wire.LockedOut, fields={"retry_after": _LATER}
    ),
    "login-locked-retry-date": Scenario(
        _lock_out(423, retry_after="date"), _wire.LockedOut, fields={"retry_after": _LATER}
    ),
    "login-fault-500": Scenario(
        _fault("login", "status", status=500, payload="Internal Server Error, error id: 0"),
        _wire.Faulty,
        fields={"known": True},
    ),
    "login-fault-502": Scenario(_fault("login", "html", status=502), _wire.Faulty, fields={"known": True}),
    "login-page-200": Scenario(_fault("login", "html"), _wire.Faulty, fields={"known": True}),
    "login-not-found": Scenario(_fault("login", "status", status=404), _wire.Faulty, fields=_NOT_KNOWN),
    "renewal-granted": Scenario(lambda _: None, _wire.Granted, renewal=True),
    "renewal-granted-hosts": Scenario(
        _rules(api_hosts=MOVED), _wire.Granted, renewal=True, fields={"hosts": MOVED}
    ),
    "renewal-granted-no-md-token": Scenario(
        _rules(md_token_on_renewal=False), _wire.Granted, renewal=True, fields={"md_value": None}
    ),
    "renewal-refused": Scenario(
        lambda server: server.revoke(),
        _wire.Refused,
        renewal=True,
        fields={"disguised": False, "ends_session": True},
    ),
    "renewal-refused-200": Scenario(
        _fault("renewal", "json", payload={"errorText": "Access is denied"}),
        _wire.Refused,
        renewal=True,
        fields={"ends_session": True},
    ),
    "renewal-blamed-403": Scenario(
        _fault("renewal", "json", status=403, payload={"errorText": "Access is denied"}),
        _wire.Refused,
        renewal=True,
        fields={"ends_session": False},
    ),
    "renewal-without-token": Scenario(
        _rules(token_in_renewal=False), _wire.Faulty, renewal=True, fields=_NOT_KNOWN
    ),
    "renewal-penalty": Scenario(_penalty("renewal"), _wire.Penalty, renewal=True, fields={"seconds": 15.0}),
    "renewal-captcha": Scenario(_penalty("renewal", captcha=True), _wire.Captcha, renewal=True),
    "renewal-locked-429": Scenario(_lock_out(429), _wire.LockedOut, renewal=True, fields={"status": 429}),
    "renewal-fault-500": Scenario(
        _fault("renewal", "status", status=500, payload="Internal Server Error, error id: 0"),
        _wire.Faulty,
        renewal=True,
        fields={"known": True},
    ),
}


@dataclass
class Stage:
    """Where a story plays: with the emulator while it is recorded, and with the cassette alone afterwards."""

    world: World
    client: Client
    provider: TokenProvider
    url: str
    recording: bool

    @property
    def events(self) -> Recorder:
        """What the provider has told."""
        return self.world.events

    def arrange(self, prepare: Callable[[Emulator], object]) -> None:
        """Prepare the server, if there is one."""
        if self.recording:
            prepare(self.world.server)

    def get(self) -> Answer:
        """Ask for the accounts."""
        return self.client.get(f"{self.url}{ACCOUNTS}", follow=False)

    def order(self) -> Answer:
        """Place an order."""
        return self.client.post(f"{self.url}{ORDERS}", Body("json"))

    def later(self) -> None:
        """Let a minute pass."""
        self.world.clock.advance(60.0)

    @contextmanager
    def time_flies(self) -> Iterator[None]:
        """Let the clock run."""
        with self.world.time_flies():
            yield


Story = Callable[[Stage], None]


def _cured(stage: Stage) -> None:
    """A dead token: the call is answered as if nothing had been, after a renewal."""
    assert stage.get().status == 200
    stage.later()
    stage.arrange(_fault(ACCOUNTS, "status", status=401, payload="Access denied"))
    assert stage.get().status == 200
    stage.events.expect("LoggedIn", "Renewed")


def _order_sent_again(stage: Stage) -> None:
    """An order that was refused with 401 is sent once more, whole, with the renewed token."""
    stage.provider.get()
    stage.later()
    stage.arrange(_fault(ORDERS, "status", status=401, payload=""))
    answer = stage.order()
    assert (answer.status, answer.body) == (200, b'{"orderId": 1}')
    stage.events.expect("LoggedIn", "Renewed")


def _forbidden(stage: Stage) -> None:
    """A call that the key may never make: one renewal finds that out, and the 401 is the answer, then and later."""
    stage.provider.get()
    stage.later()
    stage.arrange(lambda server: server.forbid(ORDERS))
    assert stage.order().status == 401
    assert stage.order().status == 401
    stage.events.expect("LoggedIn", "Renewed")


def _evicted(style: str) -> Story:
    def story(stage: Stage) -> None:
        stage.provider.get()
        stage.arrange(_rules(evicted_style=style))
        stage.arrange(lambda server: [server.foreign_login() for _ in range(server.rules.max_sessions)])
        seen = [stage.get().status for _ in range(3)]
        stage.world.settled(stage.provider)
        stage.events.wait_for(Evicted)  # told after the landing, when the next flight may tell already
        stage.provider.get()
        assert seen == ([int(style)] * 3 if style != "401" else [200] * 3)
        assert stage.get().status == 200
        stage.events.expect("LoggedIn", "Evicted", "LoggedIn")

    return story


def _moved(how: str) -> Story:
    def story(stage: Stage) -> None:
        # A 404 without a body means a move only to whoever was assigned a host before.
        stage.arrange(_rules(api_hosts={"mdDemo": "127.0.0.3"}))
        assert stage.get().status == 200
        stage.arrange(_rules(wrong_host=how, api_hosts={"demo": "127.0.0.2"}, own_hosts=("127.0.0.2",)))
        assert stage.get().status == 200
        stage.events.wait_for(Renewed)
        assert stage.provider.url("demo", "/x").startswith("http://127.0.0.2:")

    return story


def _ticket(stage: Stage) -> None:
    """A login that meets a penalty is sent again with the ticket, after the wait, and the caller only waits."""
    stage.arrange(_rules(ticket_required=True))
    stage.arrange(_penalty(seconds=15.0))
    with stage.time_flies():
        assert stage.get().status == 200
    stage.events.wait_for(LoggedIn)
    assert [event.seconds >= 15.0 for event in stage.events.of(Held)] == [True]
    assert len(stage.events.of(LoggedIn)) == 1


def _penalized_renewal(stage: Stage) -> None:
    """A renewal that meets a penalty changes nothing for callers."""
    assert stage.get().status == 200
    stage.arrange(_penalty("renewal"))
    with pytest.raises(Throttled):
        stage.provider.renew()
    assert stage.get().status == 200
    stage.events.wait_for(RenewalFailed)
    assert not stage.events.of(Evicted)


STORIES: Final[dict[str, Story]] = {
    "call-cured": _cured,
    "call-order-sent-again": _order_sent_again,
    "call-forbidden": _forbidden,
    **{f"call-evicted-{style}": _evicted(style) for style in ("408", "429", "500", "502", "401")},
    **{f"call-moved-{how}": _moved(how) for how in ("307", "421", "404")},
    "login-penalty-redeemed": _ticket,
    "renewal-penalty-unnoticed": _penalized_renewal,
}


def token_of(value: str) -> AccessToken:
    """Return a token of this text, for a renewal to carry."""
    from tradovate_auth._grant import token_from

    granted = _wire.Granted(value, None, 60.0, None, "", {}, {})
    return token_from(granted, issued_at=0.0, generation=1, previous=None, hosts={}, device_id=None)
