"""What to do next: the table, an example for each of its rows, and what no view may ever lead to."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from values import DAY, HOUR, LIFETIME, MINUTE, NOW, PACE, TICKET, at
from values import token as some_token
from values import view as some_view

from tradovate_auth import (
    AccessToken,
    Budget,
    CaptchaRequired,
    LockedOut,
    LoginRefused,
    LoginRequired,
    ProtocolError,
    SessionEvicted,
    Throttled,
    TradovateAuthError,
    TransportError,
)
from tradovate_auth import _decision as module
from tradovate_auth._decision import TABLE, Decision, Idle, Login, Pause, Renew, Stop, Use, decide, hold_error
from tradovate_auth._holds import Hold, HoldKind, Latch
from tradovate_auth._ledger import Ledger
from tradovate_auth._pace import Pace
from tradovate_auth._view import Need, View, stale_moment

TOKEN = some_token()
STALE = NOW + LIFETIME - 900.0
ENDS = NOW + LIFETIME
WANTED = Need(login=True)
DOUBTED = Need(doubted=1)
LATCH = Latch("fingerprint", "wrong password", None)
LIFTING = replace(LATCH, until=NOW + HOUR, pause=HOUR)
KINDS: tuple[HoldKind, ...] = ("penalty", "captcha", "locked", "evicted", "lost", "protocol")


def held_until(until: float, ticket: str | None = None) -> Ledger:
    """Return a ledger with a penalty."""
    return Ledger(hold=Hold("penalty", until, "the server asked to slow down", ticket))


def locked_until(until: float) -> Ledger:
    """Return a ledger with a lock-out."""
    return Ledger(hold=Hold("locked", until, "the server locked us out with 429"))


def row_of(view: View) -> str:
    """Return the name of the row that decides."""
    return next(name for name, matches, _ in TABLE if matches(view))


# Every row of the table, with a view that leads to it and what is decided then.
ROWS: dict[str, tuple[View, type[Decision]]] = {
    "good": (some_view(held=TOKEN), Use),
    "living, held": (some_view(now=STALE, held=TOKEN, ledger=held_until(ENDS)), Use),
    "living, due": (some_view(now=STALE, held=TOKEN), Renew),
    "living": (some_view(now=STALE, held=TOKEN, tried=True), Use),
    "sit out": (some_view(need=WANTED, ledger=held_until(NOW + 15, TICKET)), Pause),
    "held": (some_view(need=WANTED, ledger=locked_until(NOW + 15)), Stop),
    "lapsed": (some_view(now=ENDS, held=TOKEN), Renew),
    "nobody waits": (some_view(), Idle),
    "latched": (some_view(need=WANTED, latch=LATCH), Stop),
    "not allowed": (some_view(need=WANTED, may_login=False), Stop),
    "crowded": (some_view(need=WANTED, machine=Ledger(failed_logins=(NOW - 5,) * 3)), Pause),
    "spent": (some_view(need=WANTED, ledger=Ledger(failed_logins=(NOW,) * 3)), Stop),
    "log in": (some_view(need=WANTED), Login),
}


@pytest.mark.parametrize("name", ROWS)
def test_every_row_can_be_reached(name: str) -> None:
    """There is a view for each row at which it, and none above it, matches; and it decides what the table says."""
    view, kind = ROWS[name]
    assert row_of(view) == name
    assert isinstance(decide(view), kind)


def test_the_table_is_documented() -> None:
    """The table at the top of the module lists exactly the rows of TABLE, in their order, with their decisions."""
    lines = str(module.__doc__).split("decision\n", 1)[1].splitlines()
    documented = [re.split(r"\s{2,}", line.strip())[::2] for line in lines if line.startswith("    ")]
    assert [name for name, _ in documented] == [name for name, _, _ in TABLE] == list(ROWS)
    for name, decision in documented:
        assert decision.split(":")[0].split(",")[0].split()[0] == ROWS[name][1].__name__


def test_the_last_row_matches_everything() -> None:
    """No view is left without a decision."""
    assert TABLE[-1][1](some_view(held=TOKEN))


class TestMachine:
    """What the server counts by address holds for every account of the machine."""

    def test_its_renewals_count(self) -> None:
        """With the machine's renewals of the hour spent, a token that is due is used to its end, and lapsed is not offered."""
        spent = Ledger(renewals=(STALE,) * 12)
        assert row_of(some_view(now=STALE, held=TOKEN, machine=spent)) == "living"
        assert row_of(some_view(now=STALE, held=TOKEN, need=DOUBTED, machine=spent)) == "living"
        assert row_of(some_view(now=ENDS, held=TOKEN, need=WANTED, machine=spent)) == "log in"

    def test_its_hold_counts(self) -> None:
        """A lock-out of the machine stops an account that has none of its own; the later one of two tells how long."""
        locked = locked_until(NOW + HOUR)
        assert row_of(some_view(need=WANTED, machine=locked)) == "held"
        both = some_view(need=WANTED, machine=locked, ledger=held_until(NOW + 15, TICKET))
        assert isinstance(decide(both), Stop)
        assert both.hold == locked.hold
        assert row_of(some_view(held=TOKEN, now=STALE, machine=locked_until(ENDS))) == "living, held"

    def test_logins_of_others_are_waited_for(self) -> None:
        """Failed logins of the last minute may be some that are about to be granted: a moment; then they have failed."""
        crowd = Ledger(failed_logins=(NOW - MINUTE, NOW - 1, NOW))
        assert decide(some_view(need=WANTED, machine=crowd)) == Pause(1.0)
        assert row_of(some_view(now=NOW + MINUTE, need=WANTED, machine=crowd)) == "spent"
        own = Ledger(failed_logins=(NOW,) * 3)
        assert row_of(some_view(need=WANTED, ledger=own, machine=crowd)) == "spent"

    def test_a_ticket_belongs_to_its_machine(self) -> None:
        """P§4.1: it is bound to the address; another machine asks without."""
        hold = Hold("penalty", NOW, "slow down", TICKET, scope="this")
        asked = some_view(need=WANTED, ledger=Ledger(hold=hold))
        assert decide(replace(asked, scope="this")) == Login(TICKET)
        assert decide(replace(asked, scope="that")) == Login(None)


class TestUse:
    """When the token in hand is served, and when it is looked at again."""

    def test_a_good_token_until_it_is_due(self) -> None:
        """A fresh token is looked at again when its renewal is due."""
        assert decide(some_view(held=TOKEN)) == Use(TOKEN, STALE - NOW)

    def test_never_beyond_its_end(self) -> None:
        """However late the renewal: the token is looked at again when it ends."""
        assert decide(some_view(held=TOKEN, stale_at=ENDS + 99)) == Use(TOKEN, LIFETIME)
        late = some_view(now=ENDS - 5, held=TOKEN, tried=True, ledger=Ledger(retry_at=ENDS))
        assert decide(late) == Use(TOKEN, 5.0)

    @pytest.mark.parametrize(("wait", "again_in"), [(7.0, 7.0), (600.0, MINUTE)])
    def test_a_stale_token_that_cannot_be_renewed_now(self, wait: float, again_in: float) -> None:
        """It is looked at again when the renewal is allowed, and once a minute, for others may have renewed it."""
        waiting = some_view(now=STALE, held=TOKEN, ledger=Ledger(retry_at=STALE + wait))
        assert decide(waiting) == Use(TOKEN, again_in)

    @pytest.mark.parametrize(("wait", "again_in"), [(7.0, 7.0), (600.0, MINUTE)])
    def test_a_hold_is_invisible_to_its_owner(self, wait: float, again_in: float) -> None:
        """While the server forbids calls a living token is served all the same."""
        assert decide(some_view(now=STALE, held=TOKEN, ledger=held_until(STALE + wait))) == Use(
            TOKEN, again_in
        )
        assert decide(some_view(held=TOKEN, need=DOUBTED, ledger=held_until(NOW + wait))) == Use(
            TOKEN, again_in
        )

    def test_an_exhausted_budget(self) -> None:
        """With the hour's renewals spent the token is used to its end."""
        spent = Ledger(renewals=(STALE,) * 12)
        assert decide(some_view(now=ENDS - 9, held=TOKEN, need=WANTED, ledger=spent)) == Use(TOKEN, 9.0)


class TestRenew:
    """When a renewal is sent, and on whose account."""

    def test_when_it_is_due(self) -> None:
        """A stale token is renewed on the schedule's account."""
        assert decide(some_view(now=STALE, held=TOKEN)) == Renew(TOKEN, scheduled=True)

    @pytest.mark.parametrize("need", [Need(doubted=1), Need(replace=1), Need(doubted=2)])
    def test_when_somebody_doubts_or_replaces_it(self, need: Need) -> None:
        """A fresh token that is doubted, or that somebody wants replaced, is renewed within the allowance."""
        assert decide(some_view(held=TOKEN, need=need)) == Renew(TOKEN, scheduled=False)
        waiting = some_view(held=TOKEN, need=need, ledger=Ledger(unscheduled_at=NOW + 30))
        assert decide(waiting) == Use(TOKEN, 30.0)

    def test_not_for_an_older_generation(self) -> None:
        """Doubts about an older token say nothing about this one."""
        token = some_token(generation=2)
        assert decide(some_view(held=token, need=DOUBTED)) == Use(token, STALE - NOW)

    def test_a_planned_one_does_not_draw_on_the_allowance(self) -> None:
        """A token that is both due and doubted is renewed as planned, unless only the allowance permits it."""
        both = some_view(now=STALE, held=TOKEN, need=DOUBTED)
        assert decide(both) == Renew(TOKEN, scheduled=True)
        assert decide(replace(both, ledger=Ledger(retry_at=STALE + 5))) == Renew(TOKEN, scheduled=False)
        neither = Ledger(retry_at=STALE + 5, unscheduled_at=STALE + 3)
        assert decide(replace(both, ledger=neither)) == Use(TOKEN, 3.0)

    def test_once_in_a_pass(self) -> None:
        """A pass that has asked in vain does not ask again."""
        assert isinstance(decide(some_view(now=STALE, held=TOKEN, tried=True)), Use)

    @pytest.mark.parametrize(
        ("changes", "offered"),
        [
            ({}, True),
            ({"now": ENDS + HOUR - 1}, True),
            ({"now": ENDS + HOUR}, False),
            ({"offered": True}, False),
            ({"ledger": Ledger(renewals=(ENDS,) * 12)}, False),
            ({"ledger": Ledger(unscheduled_at=ENDS + DAY)}, True),
        ],
    )
    def test_a_lapsed_token_is_offered_once(self, changes: dict[str, Any], *, offered: bool) -> None:
        """A token that ended within the hour is offered before a login, once, if the budget alone permits it."""
        decision = decide(some_view(**{"now": ENDS, "held": TOKEN, "need": WANTED, **changes}))
        assert decision == (Renew(TOKEN, scheduled=False) if offered else Login(None))


class TestLogin:
    """When a session is opened."""

    def test_with_a_ticket_to_redeem(self) -> None:
        """When the penalty is over its ticket goes with the login."""
        over = some_view(need=WANTED, ledger=held_until(NOW, TICKET))
        assert decide(over) == Login(TICKET)
        assert TICKET not in repr(decide(over))

    def test_the_wait_for_a_ticket(self) -> None:
        """Whoever waits for a login sits a penalty out; whoever may not log in is told, and so is the schedule."""
        penalty = some_view(need=WANTED, ledger=held_until(NOW + 15, TICKET))
        assert decide(penalty) == Pause(15.0)
        assert row_of(replace(penalty, may_login=False)) == "held"
        assert row_of(replace(penalty, need=Need())) == "held"
        assert row_of(some_view(need=WANTED, ledger=held_until(NOW + 15))) == "sit out"

    def test_the_wait_for_a_lapsed_token(self) -> None:
        """A penalty on the one renewal of a lapsed token is sat out too, also by whoever may not log in."""
        waiting = some_view(now=ENDS, held=TOKEN, need=WANTED, may_login=False, ledger=held_until(ENDS + 15))
        assert decide(waiting) == Pause(15.0)

    def test_a_penalty_that_does_not_end_is_a_hold(self) -> None:
        """After two redeemed tickets nobody waits in line any more."""
        worn = Ledger(hold=Hold("penalty", NOW + 900, "the server asked to slow down", None, 2))
        assert row_of(some_view(need=WANTED, ledger=worn)) == "held"

    def test_a_latch_lifts(self) -> None:
        """A latch with an end forbids logins until then."""
        assert row_of(some_view(need=WANTED, latch=LIFTING)) == "latched"
        assert row_of(some_view(now=NOW + HOUR, need=WANTED, latch=LIFTING)) == "log in"

    @pytest.mark.parametrize("spent", [Ledger(failed_logins=(NOW,) * 3), Ledger(logins=(NOW,) * 5)])
    def test_the_budget(self, spent: Ledger) -> None:
        """Three failed or five granted logins in the hour are enough; `retry_after` says when it is over."""
        decision = decide(some_view(now=NOW + MINUTE, need=WANTED, ledger=spent))
        assert isinstance(decision, Stop)
        assert type(decision.error) is Throttled
        assert decision.error.retry_after == HOUR - MINUTE
        assert row_of(some_view(now=NOW + HOUR, need=WANTED, ledger=spent)) == "log in"


class TestStop:
    """The typed errors of whoever has no token."""

    @pytest.mark.parametrize(
        ("kind", "error"),
        [
            ("penalty", Throttled),
            ("captcha", CaptchaRequired),
            ("locked", LockedOut),
            ("evicted", SessionEvicted),
            ("lost", TransportError),
            ("protocol", ProtocolError),
        ],
    )
    def test_holds(self, kind: HoldKind, error: type[TradovateAuthError]) -> None:
        """Each kind of hold has its error, which says why and for how long."""
        hold = Hold(kind, NOW + 42, "the moon is full", TICKET)
        decision = decide(some_view(ledger=Ledger(hold=hold)))
        assert isinstance(decision, Stop)
        for found in (decision.error, hold_error(hold, 42.0)):
            assert type(found) is error
            assert found.message == "Nothing is sent for now: the moon is full."
            assert found.retry_after == 42.0

    @pytest.mark.parametrize(("latch", "retry_after"), [(LATCH, None), (LIFTING, HOUR)])
    def test_refused_credentials(self, latch: Latch, retry_after: float | None) -> None:
        """Refused credentials are told with the server's words, and with a wait only where waiting can help."""
        decision = decide(some_view(need=WANTED, latch=latch))
        assert isinstance(decision, Stop)
        assert type(decision.error) is LoginRefused
        assert decision.error.message == "The server refused the login: 'wrong password'."
        assert decision.error.retry_after == retry_after

    def test_the_login_policy(self) -> None:
        """Whoever may not log in is told so."""
        decision = decide(some_view(need=WANTED, may_login=False))
        assert isinstance(decision, Stop)
        assert type(decision.error) is LoginRequired


class TestStaleMoment:
    """When a token is due for renewal."""

    @pytest.mark.parametrize(
        ("lifetime", "lead"), [(4800.0, 900.0), (DAY, 900.0), (3600.0, 900.0), (60.0, 15.0)]
    )
    def test_a_quarter_of_an_hour_or_of_its_life(self, lifetime: float, lead: float) -> None:
        """The lead is fifteen minutes, or a quarter of the lifetime where that is shorter; a fifth of it is random."""
        token = some_token(expires_at=at(NOW + lifetime))
        assert stale_moment(token, PACE, 0.0) == pytest.approx(NOW + lifetime - lead)
        assert stale_moment(token, PACE, 1.0) == pytest.approx(NOW + lifetime - lead * 0.8)

    def test_an_unknown_end(self) -> None:
        """A token whose end is unknown is due after a minute."""
        assert stale_moment(some_token(known_expiry=False), PACE, 0.5) == NOW + MINUTE
        assert stale_moment(some_token(known_expiry=False), Pace(60.0, None), 0.5) == NOW + 1

    @given(st.floats(1, DAY), st.floats(0, 1))
    def test_always_within_its_life(self, lifetime: float, spread: float) -> None:
        """However long a token lives, its renewal is due in the last quarter of its life, and before its end."""
        token = some_token(expires_at=at(NOW + lifetime))
        assert NOW + lifetime * 0.75 - 1e-3 <= stale_moment(token, PACE, spread) < NOW + lifetime


MOMENTS = st.sampled_from([NOW - DAY, NOW - HOUR, NOW - 1, NOW, NOW + 1, NOW + 30, NOW + HOUR, NOW + DAY])
ENTRIES = st.lists(MOMENTS, max_size=14).map(tuple)
LEDGERS = st.builds(
    Ledger,
    failed_logins=ENTRIES,
    logins=ENTRIES,
    renewals=ENTRIES,
    unscheduled=ENTRIES,
    renewed_at=st.none() | MOMENTS,
    retry_at=MOMENTS,
    unscheduled_at=MOMENTS,
    pause=st.floats(0, 600),
    hold=st.none()
    | st.builds(Hold, st.sampled_from(KINDS), MOMENTS, st.just("x"), st.none() | st.just(TICKET)),
)


@st.composite
def views(draw: st.DrawFn) -> View:
    """Draw any view at all."""
    generation = draw(st.integers(1, 3))
    token: AccessToken | None = draw(
        st.none() | st.builds(some_token, generation=st.just(generation), known_expiry=st.booleans())
    )
    return some_view(
        held=token,
        ends_at=draw(MOMENTS) if token is not None else 0.0,
        stale_at=draw(MOMENTS) if token is not None else 0.0,
        need=Need(draw(st.integers(0, 3)), draw(st.integers(0, 3)), draw(st.booleans())),
        budget=Budget(failed_logins=draw(st.integers(1, 5)), renewals=draw(st.integers(1, 15))),
        ledger=draw(LEDGERS),
        machine=draw(LEDGERS),
        offered=draw(st.booleans()),
        tried=draw(st.booleans()),
        latch=draw(st.none() | st.builds(Latch, st.just("f"), st.just("no"), st.none() | MOMENTS)),
        may_login=draw(st.booleans()),
    )


def expected(view: View) -> None:
    """Check what must hold for what is decided at this view."""
    decision, living, held = decide(view), view.now < view.ends_at and view.token is not None, view.hold
    match decision:
        case Use(token, again_in):
            assert living, "a token that has ended is never used"
            assert token is view.token
            assert 0 <= again_in <= view.ends_at - view.now
        case Renew(token, scheduled):
            assert held is None, "nothing is sent during a hold"
            assert token is view.token
            assert not view.tried or not living
            for ledger in (view.ledger, view.machine):
                assert ledger.renewals_spent(view.now, PACE, view.budget) == 0, "the budget is kept"
            if living:
                assert view.now >= view.stale_at if scheduled else view.unwanted
                assert view.ledger.renewal_wait(view.now, PACE, view.budget, scheduled=scheduled) == 0
            else:
                assert not view.offered, "a lapsed token is offered once"
        case Login():
            assert not living, "no login while a living token exists"
            assert held is None, "nothing is sent during a hold"
            assert view.need.login, "the schedule never logs in"
            assert view.may_login
            for ledger in (view.ledger, view.machine):
                assert ledger.login_wait(view.now, PACE, view.budget) == 0, "the budget is kept"
            assert view.latch is None or (view.latch.until is not None and view.latch.until <= view.now)
        case Pause(seconds):
            assert not living
            assert seconds == (held.until - view.now if held is not None else 1.0) > 0
            assert held is not None or view.crowded
        case Stop(error):
            assert not living, "whoever has a token never gets an error"
            assert error.retry_after is None or error.retry_after > 0
        case Idle():
            assert not living
            assert not view.need.login, "whoever waits gets a token or an error"


@given(views())
@settings(max_examples=200)
def test_what_no_view_leads_to(view: View) -> None:
    """Never a login beside a living token, in a hold, unasked, latched or beyond the budget; never a renewal in a hold
    or beyond the budget; never a token that has ended.
    """
    expected(view)


@pytest.mark.parametrize("name", ROWS)
def test_the_examples_keep_the_rules(name: str) -> None:
    """The views above, one for each row, keep the same rules."""
    expected(ROWS[name][0])


@given(views())
def test_deciding_changes_nothing(view: View) -> None:
    """Deciding is pure: asked again, the table says the same."""
    first, second = decide(view), decide(view)
    assert type(first) is type(second)
    assert repr(first) == repr(second)
