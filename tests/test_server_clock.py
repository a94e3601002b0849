"""What answers teach about the server's clock: the range that a Date allows, the median of several, and what is not believed."""

from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest
from core_tools import SocketTransport, World, eventually
from hypothesis import given
from hypothesis import strategies as st
from values import DAY, NOW

from tradovate_auth._account import Account
from tradovate_auth._delivery import deliver
from tradovate_auth._server_clock import Term, clock_offset, median_offset
from tradovate_auth._wire import login_call
from tradovate_auth.events import Renewed, Warned
from tradovate_auth.storage import Record
from tradovate_auth.testing.emulator import Fault
from tradovate_auth.transport import Call, Reply


def account(world: World, **options: object) -> Account:
    """Return the account of a new provider."""
    return world.provider(**options)._account


@given(
    offset=st.floats(-DAY, DAY),
    believed=st.floats(-DAY, DAY),
    there=st.floats(0, 10),
    back=st.floats(0, 10),
)
def test_the_clocks_differ_by_what_the_answer_allows(
    offset: float, believed: float, there: float, back: float
) -> None:
    """The offset is off by no more than half of what a Date of whole seconds and the way of the answer leave open."""
    sent, received = NOW, NOW + there + back
    date = float(int(sent + there + offset))
    found = clock_offset(date, sent, received, believed)
    assert date - received <= found <= date + 1.0 - sent
    if believed == found:
        assert abs(found - offset) <= 1.0 + there + back + 1e-6
    else:
        assert abs(found - offset) <= (1.0 + there + back) / 2 + 1e-6


@given(believed=st.floats(-0.4, 0.4))
def test_a_good_clock_is_left_alone(believed: float) -> None:
    """An offset that the answer does not contradict stays as it is, so that the clock does not wander."""
    assert clock_offset(NOW, NOW + 0.5, NOW + 0.5, believed) == believed


def test_a_wrong_clock_is_corrected() -> None:
    """A clock that is an hour slow is found out by one answer."""
    assert clock_offset(NOW + 3600, NOW, NOW + 0.2, 0.0) == pytest.approx(3600.4)


@pytest.mark.parametrize(
    ("samples", "median"),
    [
        ([5.0], 5.0),
        ([5.0, 7.0], 7.0),
        ([7.0, 5.0], 5.0),
        ([0.0, 0.0, 7200.0], 0.0),
        ([7200.0, 0.0, 0.0], 0.0),
        ([0.0, 7200.0, 7201.0], 7200.0),
        ([0.0, 7200.0, 0.5, 7201.0], 0.5),
        ([1.0, 1.0, 1.0], 1.0),
    ],
)
def test_one_odd_answer_is_outvoted(samples: list[float], median: float) -> None:
    """The median, and of two in the middle the newer: a single odd `Date` among several changes little, one that was
    confirmed is believed.
    """
    assert median_offset(samples) == median


@given(st.lists(st.floats(-DAY, DAY), min_size=1, max_size=9))
def test_the_median_is_one_of_the_answers(samples: list[float]) -> None:
    """No offset is made up, and at most half of the answers lie on either side of it."""
    median = median_offset(samples)
    assert median in samples
    assert sum(sample < median for sample in samples) <= len(samples) / 2
    assert sum(sample > median for sample in samples) <= len(samples) / 2


@pytest.mark.parametrize("offset", [0.0, 600.0, -600.0])
def test_the_servers_clock_is_learnt_from_its_date(world: World, offset: float) -> None:
    """A difference is stored for all processes; one that a `Date` of whole seconds allows is left as it is."""
    world.server.configure(clock_offset=offset)
    mine = account(world)
    call = login_call(mine.credentials, world.server.url)
    _, at = deliver(mine, call, Record(), patient=False)
    assert at == pytest.approx(world.clock.time() + offset, abs=1)
    assert mine.update(lambda record: replace(record, generation=1)).offset == pytest.approx(offset, abs=1)
    learnt = mine.load().offset
    deliver(mine, call, mine.load(), patient=False)
    assert mine.update(lambda record: replace(record, generation=2)).offset == learnt
    assert mine.now(mine.load()) == pytest.approx(world.clock.time() + offset, abs=1)


def ask(world: World, mine: Account, offset: float) -> float:
    """Log in while the server's clock is that wrong, and write down what that taught; return the offset then."""
    world.server.configure(clock_offset=offset)
    deliver(mine, login_call(mine.credentials, world.server.url), mine.load(), patient=False)
    return mine.update(lambda record: replace(record, generation=record.generation + 1)).offset


def test_one_odd_date_is_outvoted(world: World) -> None:
    """Of the answers of a quarter of an hour the median counts: one with a wrong clock changes nothing for anybody."""
    mine = account(world)
    assert ask(world, mine, 600.0) == pytest.approx(600, abs=1)
    assert ask(world, mine, 600.0) == pytest.approx(600, abs=1)
    assert ask(world, mine, -7200.0) == pytest.approx(600, abs=1)
    assert mine.server.oddities == []
    assert ask(world, mine, 600.0) == pytest.approx(600, abs=1)


def test_a_clock_that_was_set_is_believed_the_second_time(world: World) -> None:
    """However often the old time was told before; and from the next answer on nothing is left of it."""
    mine = account(world)
    for _ in range(5):
        ask(world, mine, 0.0)
    assert ask(world, mine, 7200.0) == pytest.approx(0, abs=1)
    assert ask(world, mine, 7200.0) == pytest.approx(7200, abs=1)
    assert ask(world, mine, 7200.0) == pytest.approx(7200, abs=1)


@pytest.mark.parametrize(("later", "offset"), [(899.0, 0.0), (901.0, 7200.0)])
def test_old_answers_do_not_vote(world: World, later: float, offset: float) -> None:
    """What was said more than fifteen minutes ago outvotes nothing: a clock that has been set since is believed at once."""
    mine = account(world)
    for _ in range(2):
        ask(world, mine, 0.0)
    world.clock.advance(later)
    assert ask(world, mine, 7200.0) == pytest.approx(offset, abs=1)


@pytest.mark.parametrize(
    ("offset", "told"), [(7200.0, ["+2.0 h"]), (-7200.0, ["-2.0 h"]), (3000.0, []), (-3000.0, [])]
)
def test_a_clock_that_is_far_off_is_reported(world: World, offset: float, told: list[str]) -> None:
    """More than an hour is believed, and said: once, not with every answer. The token's end is right."""
    world.server.configure(clock_offset=offset)
    provider = world.provider()
    token = provider.get()
    world.clock.advance(61)
    provider.renew()
    world.events.wait_for(Renewed)
    world.settled(provider)
    eventually(lambda: len(world.events.all) >= 2 + len(told))
    warned = [event.reason for event in world.events.of(Warned)]
    assert len(warned) == len(told)
    assert all(text in reason for text, reason in zip(told, warned, strict=True))
    assert token.issued_at.timestamp() == pytest.approx(world.clock.time() - 61 + offset, abs=2)
    assert provider.get().lifetime == pytest.approx(4800, abs=2)


def test_other_accounts_have_offsets_of_their_own(world: World) -> None:
    """What one account has learnt of the server's clock is in its own record: another learns it with its first answer."""
    world.server.configure(clock_offset=7200.0)
    knows, new = account(world), account(world, who=world.server.add_user("another", "password"))
    ask(world, knows, 7200.0)
    assert new.now(new.load()) == world.clock.time()
    ask(world, new, 7200.0)
    assert new.now(new.load()) == pytest.approx(knows.now(knows.load()), abs=1)


def test_a_storage_whose_clock_fails_costs_no_answer(world: World) -> None:
    """The answer may hold a token: what the storage's clock would have said is reckoned."""

    class FailsMeanwhile(SocketTransport):
        def send(self, call: Call, timeout: float) -> Reply:
            reply = super().send(call, timeout)
            world.clock.advance(5)
            world.storage.broken = {"now"}
            return reply

    mine = account(world, transport=FailsMeanwhile())
    started = world.clock.time()
    _, at = deliver(mine, login_call(mine.credentials, world.server.url), Record(), patient=False)
    assert at == pytest.approx(started + 5, abs=6)


@pytest.mark.parametrize(
    "fault", [{"kind": "html"}, {"kind": "status", "status": 503}, {"kind": "status", "status": 429}]
)
def test_an_error_page_teaches_nothing_about_the_clock(world: World, fault: dict[str, Any]) -> None:
    """A gateway has a clock of its own: only what is really the auth server's answer moves ours."""
    world.server.configure(clock_offset=7200.0)
    world.server.inject(Fault("login", **fault))
    mine = account(world)
    _, at = deliver(mine, login_call(mine.credentials, world.server.url), Record(), patient=False)
    assert at == pytest.approx(world.clock.time(), abs=1)
    assert mine.update(lambda record: replace(record, generation=1)).offset == 0.0


@pytest.mark.parametrize("hours", [-25.0, -2.0, 2.0, 25.0])
def test_a_date_that_contradicts_its_own_answer_is_not_believed(world: World, hours: float) -> None:
    """One renewal's `Date` is hours away, its `expirationTime` is not: the token lives as long as any, and nobody logs in."""

    class OddDate(SocketTransport):
        def send(self, call: Call, timeout: float) -> Reply:
            reply = super().send(call, timeout)
            if "renew" not in call.url:
                return reply
            odd = formatdate(world.clock.time() + hours * 3600, usegmt=True)
            return replace(reply, headers={**reply.headers, "Date": odd})

    provider = world.provider(transport=OddDate())
    first = provider.get()
    world.clock.advance(4100)
    provider.get()
    world.settled(provider)
    newer = provider.get()
    assert newer.generation == first.generation + 1
    assert newer.lifetime == pytest.approx(4800, abs=2)
    assert provider._account.load().offset == pytest.approx(0, abs=1)
    assert world.server.counts.logins == 1
    warned = world.events.wait_for(Warned)
    assert f"{hours:+.1f} h away from its own expirationTime" in warned.reason


@pytest.mark.parametrize(
    ("now", "other", "fits"),
    [(NOW, NOW + 7200, True), (NOW + 7200, NOW, False), (NOW - 7200, NOW, False), (NOW, NOW, True)],
)
def test_a_term_says_which_clock_it_was_granted_by(now: float, other: float, *, fits: bool) -> None:
    """The one by which the token lives more nearly as long as tokens do."""
    assert Term(NOW + 4800, 4800).fits(now, other) is fits


def test_before_there_is_a_token_a_date_needs_only_to_be_possible(world: World) -> None:
    """Tokens live twenty minutes here, and this machine's clock is an hour and a half slow: the first answer sets it right."""
    world.server.configure(lifetime=1200, clock_offset=5400.0)
    token = world.provider().get()
    assert token.lifetime == pytest.approx(1200, abs=2)
    assert token.expires_at.timestamp() == pytest.approx(world.clock.time() + 5400 + 1200, abs=2)


@pytest.mark.parametrize(("lifetime", "fits"), [(0.0, False), (1.0, True), (DAY, True), (DAY + 1, False)])
def test_what_is_possible(lifetime: float, *, fits: bool) -> None:
    """A token lives for a moment at least, and for a day at most."""
    assert Term(NOW + lifetime, None).fits(NOW, NOW + 5) is fits


@pytest.mark.parametrize("hours", [-2.0, 2.0])
def test_an_answer_without_a_token_moves_no_clock_by_hours(world: World, hours: float) -> None:
    """A penalty on a renewal has a `Date` that is hours away: the token in hand neither ends early nor lives on."""
    provider = world.provider()
    token = provider.get()
    world.server.penalize("renewal", seconds=15)
    world.server.configure(clock_offset=hours * 3600)
    world.clock.advance(4200)
    provider.get()
    world.settled(provider)
    world.server.configure(clock_offset=0.0)
    warned = world.events.wait_for(Warned)
    assert f"{hours:+.1f} h away from the server's clock as it is known" in warned.reason
    assert provider._account.load().offset == pytest.approx(0, abs=1)
    assert provider.get() is token
    world.clock.advance(301)
    provider.get()
    world.events.wait_for(Renewed)
    assert world.server.counts.logins == 1
