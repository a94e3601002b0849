"""What was spent, what is forbidden, and when the next call may be made."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from values import DAY, HOUR, MINUTE, NOW, PACE

from tradovate_auth import Budget
from tradovate_auth._holds import Hold, HoldKind, Latch
from tradovate_auth._ledger import Ledger
from tradovate_auth._pace import Pace

BUDGETS = st.builds(
    Budget, failed_logins=st.integers(1, 5), logins=st.integers(1, 5), renewals=st.integers(1, 15)
)
STEPS = st.lists(st.floats(0, 2 * HOUR) | st.floats(0, 5 * MINUTE), min_size=1, max_size=60)
FINGERPRINT = "fingerprint"


def most_in_an_hour(moments: list[float]) -> int:
    """Return how many of the moments lie in the fullest hour."""
    return max((sum(1 for other in moments if start <= other < start + HOUR) for start in moments), default=0)


def refused(ledger: Ledger, now: float, *, disguised: bool = True, fingerprint: str = FINGERPRINT) -> Ledger:
    """Return the ledger after a login that was refused."""
    return ledger.with_login(now, PACE).with_login_refused(now, PACE, fingerprint, "no", disguised=disguised)


class TestPace:
    """The minutes of an account."""

    def test_on_the_vendors_hosts(self) -> None:
        """With an hour of 3,600 seconds and tokens of 80 minutes the numbers are those of the design."""
        assert (PACE.minute, PACE.between_renewals, PACE.first_pause, PACE.longest_pause) == (
            60,
            300,
            60,
            600,
        )

    def test_before_the_first_token(self) -> None:
        """Without a token its lifetime shortens nothing."""
        assert (Pace(HOUR, None).between_renewals, Pace(HOUR, None).first_pause) == (300, 60)

    @pytest.mark.parametrize(("lifetime", "between", "first"), [(600.0, 100.0, 60.0), (60.0, 10.0, 10.0)])
    def test_short_lives(self, lifetime: float, between: float, first: float) -> None:
        """Where a sixth of the lifetime is shorter, that is the pause."""
        pace = Pace(HOUR, lifetime)
        assert (pace.between_renewals, pace.first_pause) == (between, first)

    def test_a_short_hour(self) -> None:
        """Every minute shrinks with the hour."""
        pace = Pace(60.0, None)
        assert (pace.minute, pace.between_renewals, pace.first_pause, pace.longest_pause) == (1, 5, 1, 10)

    def test_backoff(self) -> None:
        """After failed renewals the wait doubles from a quarter of a minute to five minutes, and no further."""
        waits = [PACE.backoff(failures) for failures in (1, 2, 3, 4, 5, 6, 7, 10_000)]
        assert waits == [15, 30, 60, 120, 240, 300, 300, 300]


class TestBudgets:
    """Never more in a rolling hour than the budget."""

    @given(BUDGETS, STEPS, st.lists(st.booleans(), min_size=60, max_size=60))
    @settings(max_examples=100)
    def test_renewals(self, budget: Budget, steps: list[float], scheduled: list[bool]) -> None:
        """Whoever asks renewal_wait first never sends more renewals in any hour than the budget, nor more than two
        thirds of it unscheduled.
        """
        ledger, now = Ledger(), NOW
        sent: list[float] = []
        unscheduled: list[float] = []
        for step, planned in zip(steps, scheduled, strict=False):
            now += step
            if ledger.renewal_wait(now, PACE, budget, scheduled=planned) > 0:
                continue
            ledger = ledger.with_renewal(now, PACE, scheduled=planned)
            sent.append(now)
            if not planned:
                unscheduled.append(now)
        assert most_in_an_hour(sent) <= budget.renewals
        assert most_in_an_hour(unscheduled) <= max(1, budget.renewals * 2 // 3)

    @given(BUDGETS, STEPS, st.lists(st.sampled_from(["granted", "refused", "lost", "unsent"]), min_size=60))
    @settings(max_examples=100)
    def test_logins(self, budget: Budget, steps: list[float], outcomes: list[str]) -> None:
        """Whoever asks login_wait first never has more refused or lost logins in any hour than the budget, nor more
        granted ones.
        """
        ledger, now = Ledger(), NOW
        failed: list[float] = []
        granted: list[float] = []
        for step, outcome in zip(steps, outcomes, strict=False):
            now += step
            if ledger.login_wait(now, PACE, budget) > 0:
                continue
            ledger = ledger.with_login(now, PACE)
            match outcome:
                case "granted":
                    ledger = ledger.with_login_granted(now, PACE, FINGERPRINT)
                    granted.append(now)
                case "refused":
                    ledger = ledger.with_login_refused(now, PACE, FINGERPRINT, "no", disguised=True)
                    failed.append(now)
                case "lost":
                    ledger = ledger.with_login_lost(now, PACE, "why")
                    failed.append(now)
                case _:
                    ledger = ledger.without_last_login()
        assert most_in_an_hour(failed) <= budget.failed_logins
        assert most_in_an_hour(granted) <= budget.logins

    @given(BUDGETS, STEPS)
    @settings(max_examples=100)
    def test_waiting_is_enough(self, budget: Budget, steps: list[float]) -> None:
        """Whoever waits as long as was said may go, and one who goes a second earlier may not."""
        ledger, now = Ledger(), NOW
        for step in steps:
            now += step
            wait = ledger.renewal_wait(now, PACE, budget, scheduled=False)
            if wait > 1:
                assert ledger.renewal_wait(now + wait - 1, PACE, budget, scheduled=False) > 0
            now += wait
            assert ledger.renewal_wait(now, PACE, budget, scheduled=False) <= 1e-6
            ledger = ledger.with_renewal(now, PACE, scheduled=False)

    @given(STEPS, st.floats(-DAY, DAY))
    @settings(max_examples=100)
    def test_a_clock_that_was_set_back_opens_no_gap(self, steps: list[float], jump: float) -> None:
        """Entries from the future count as now, so nothing waits longer than an hour for them, or less for others."""
        ledger, now, budget = Ledger(), NOW, Budget()
        for step in steps:
            now += step
            if ledger.login_wait(now, PACE, budget) == 0:
                ledger = ledger.with_login(now, PACE)
        entries = len(ledger.pruned(now, HOUR).failed_logins)
        assert ledger.login_wait(now + jump, PACE, budget) <= HOUR
        if jump <= 0:
            assert len(ledger.pruned(now + jump, HOUR).failed_logins) >= entries

    def test_a_process_that_dies_has_been_counted(self) -> None:
        """A call is entered before it is sent: what was entered counts, whatever became of it."""
        ledger = Ledger()
        for _ in range(3):
            ledger = ledger.with_login(NOW, PACE)
        assert ledger.login_wait(NOW, PACE, Budget()) == HOUR
        assert ledger.login_wait(NOW + HOUR, PACE, Budget()) == 0

    def test_a_granted_login_is_no_failed_one(self) -> None:
        """The server counts failures alone, so a granted login moves to a count of its own."""
        ledger = Ledger().with_login(NOW, PACE).with_login_granted(NOW + 1, PACE, FINGERPRINT)
        assert (ledger.failed_logins, ledger.logins, ledger.proven) == ((), (NOW + 1,), (FINGERPRINT,))

    def test_what_never_left_is_not_spent(self) -> None:
        """A call that never left this machine leaves no trace in the ledger."""
        before = Ledger(failed_logins=(NOW - 5,), renewals=(NOW - 5,), unscheduled=(NOW - 5,))
        assert before.with_login(NOW, PACE).without_last_login() == before
        assert before.with_renewal(NOW, PACE, scheduled=True).without_last_renewal(scheduled=True) == before
        assert before.with_renewal(NOW, PACE, scheduled=False).without_last_renewal(
            scheduled=False
        ).unscheduled == (NOW - 5,)

    @given(st.floats(0, 2000), st.integers(0, 8))
    @settings(max_examples=100)
    def test_what_never_left_costs_no_pause(self, pause: float, doublings: int) -> None:
        """An unscheduled renewal that never left may be tried again at once, and the pause after it is the same."""
        ledger = Ledger(pause=min(max(pause, PACE.first_pause) * 2**doublings, PACE.longest_pause))
        sent = ledger.with_renewal(NOW, PACE, scheduled=False)
        back = sent.without_last_renewal(scheduled=False)
        assert back.renewal_wait(NOW, PACE, Budget(), scheduled=False) == 0
        assert back.with_renewal(NOW, PACE, scheduled=False) == sent

    def test_nothing_to_take_back(self) -> None:
        """Taking back from an empty ledger changes nothing."""
        assert Ledger().without_last_renewal(scheduled=True) == Ledger().without_last_login() == Ledger()

    def test_the_budget_alone(self) -> None:
        """What the budget alone allows looks at no pause."""
        ledger = Ledger().with_renewal(NOW, PACE, scheduled=False).with_renewal_failed(NOW, 99.0)
        assert ledger.renewals_spent(NOW, PACE, Budget()) == 0
        assert ledger.renewals_spent(NOW, PACE, Budget(renewals=1)) == HOUR

    def test_a_wait_where_more_was_spent_than_is_allowed(self) -> None:
        """A budget that was lowered, or other accounts of the machine: not the first that leaves the hour frees a place."""
        spent = (NOW - 3000, NOW - 2000, NOW - 1000)
        for limit, oldest in ((1, NOW - 1000), (2, NOW - 2000), (3, NOW - 3000)):
            renewals = Ledger(renewals=spent).renewals_spent(NOW, PACE, Budget(renewals=limit))
            logins = Ledger(failed_logins=spent).login_wait(NOW, PACE, Budget(failed_logins=limit))
            assert renewals == logins == oldest + HOUR - NOW
            assert Ledger(renewals=spent).renewals_spent(NOW + renewals, PACE, Budget(renewals=limit)) == 0


class TestPlannedRenewals:
    """Renewals by the schedule."""

    def test_at_most_one_in_five_minutes_is_granted(self) -> None:
        """After a grant the next planned renewal waits five minutes."""
        ledger = Ledger().with_grant(NOW)
        assert ledger.renewal_wait(NOW, PACE, Budget(), scheduled=True) == 300
        assert ledger.renewal_wait(NOW + 300, PACE, Budget(), scheduled=True) == 0

    def test_failures_are_waited_for_until_a_grant(self) -> None:
        """A failure sets the moment of the next try; a grant forgets it."""
        ledger = Ledger().with_renewal_failed(NOW, 42.0).with_renewal_failed(NOW + 42, 10.0)
        assert (ledger.failures, ledger.renewal_wait(NOW + 42, PACE, Budget(), scheduled=True)) == (2, 10.0)
        ledger = ledger.with_grant(NOW + 60)
        assert (ledger.failures, ledger.retry_at) == (0, 0.0)

    def test_they_owe_nothing_to_the_unscheduled_ones(self) -> None:
        """An allowance that is used up does not hinder the schedule."""
        ledger = Ledger(unscheduled=(NOW,) * 8, unscheduled_at=NOW + 600, pause=600)
        assert ledger.renewal_wait(NOW, PACE, Budget(), scheduled=False) == HOUR
        assert ledger.renewal_wait(NOW, PACE, Budget(), scheduled=True) == 0


class TestAllowance:
    """Renewals that nobody planned."""

    def test_one_that_never_left_changes_no_pause(self) -> None:
        """After two that were sent the next may go at once, and doubles the pause as if nothing had been taken back."""
        ledger = (
            Ledger().with_renewal(NOW, PACE, scheduled=False).with_renewal(NOW + 60, PACE, scheduled=False)
        )
        now = NOW + 180
        assert (ledger.pause, ledger.unscheduled_at) == (120, now)
        sent = ledger.with_renewal(now, PACE, scheduled=False)
        assert sent.pause == 240
        back = sent.without_last_renewal(scheduled=False)
        assert back.renewal_wait(now, PACE, Budget(), scheduled=False) == 0
        assert back.with_renewal(now, PACE, scheduled=False) == sent

    def test_the_pause_doubles_up_to_ten_minutes(self) -> None:
        """The first goes at once, the next after a minute, then the pause doubles up to ten minutes."""
        ledger, now = Ledger(), NOW
        waits = []
        for _ in range(7):
            waits.append(ledger.renewal_wait(now, PACE, Budget(), scheduled=False))
            now += waits[-1]
            ledger = ledger.with_renewal(now, PACE, scheduled=False)
        assert waits == [0, 60, 120, 240, 480, 600, 600]

    @given(st.integers(1, 20))
    def test_a_cure_resets_it(self, times: int) -> None:
        """However long the pause has become: after one that helped the next goes at once, and the one after in a
        minute.
        """
        ledger = Ledger()
        for _ in range(times):
            ledger = ledger.with_renewal(NOW, PACE, scheduled=False)
        ledger = ledger.with_cure()
        assert max(ledger.unscheduled_at, ledger.pause) == 0
        assert ledger.with_renewal(NOW, PACE, scheduled=False).unscheduled_at == NOW + 60

    def test_a_share_of_the_budget(self) -> None:
        """At most eight of twelve, however often they cure; and one at least, however small the budget."""
        ledger = Ledger()
        for _ in range(8):
            assert ledger.renewal_wait(NOW, PACE, Budget(), scheduled=False) == 0
            ledger = ledger.with_renewal(NOW, PACE, scheduled=False).with_cure()
        assert ledger.renewal_wait(NOW, PACE, Budget(), scheduled=False) == HOUR
        assert Ledger().renewal_wait(NOW, PACE, Budget(renewals=1), scheduled=False) == 0


class TestEvictions:
    """Two clients must not fight."""

    @given(st.lists(st.floats(600, DAY), min_size=1, max_size=20))
    def test_evictions_far_apart_are_no_hold(self, gaps: list[float]) -> None:
        """A single eviction, or one that comes ten minutes or more after the last, holds nothing."""
        ledger, now = Ledger(), NOW
        for gap in gaps:
            now += gap
            ledger = ledger.with_eviction(now, PACE)
            assert ledger.hold_at(now) is None

    @given(st.lists(st.floats(0, 599), min_size=1, max_size=12))
    def test_evictions_close_together_are_a_hold_that_doubles(self, gaps: list[float]) -> None:
        """Evicted again within ten minutes of the login after the last hold: ten minutes, doubling up to an hour."""
        ledger, now = Ledger().with_eviction(NOW, PACE), NOW
        for number, gap in enumerate(gaps):
            now += gap
            ledger = ledger.with_eviction(now, PACE)
            hold = ledger.hold_at(now)
            assert hold is not None
            assert hold.kind == "evicted"
            assert hold.until - now == pytest.approx(min(600 * 2**number, HOUR))
            now = hold.until
            ledger = ledger.with_login(now, PACE).with_login_granted(now, PACE, FINGERPRINT)
            assert ledger.hold_at(now) is None

    def test_peace_forgets(self) -> None:
        """Ten quiet minutes after the login that followed, the next eviction is a first one again."""
        ledger = Ledger().with_eviction(NOW, PACE).with_eviction(NOW + 1, PACE)
        ledger = ledger.with_login(NOW + 601, PACE).with_login_granted(NOW + 601, PACE, FINGERPRINT)
        ledger = ledger.with_eviction(NOW + 1201, PACE)
        assert (ledger.hold_at(NOW + 1201), ledger.eviction_pause) == (None, 0.0)

    def test_a_login_long_after_an_eviction_does_not_follow_it(self) -> None:
        """Only a login straight after an eviction starts its ten minutes anew."""
        ledger = Ledger().with_eviction(NOW, PACE)
        later = ledger.with_login(NOW + 601, PACE).with_login_granted(NOW + 601, PACE, FINGERPRINT)
        assert later.evicted_at == NOW
        soon = ledger.with_login(NOW + 5, PACE).with_login_granted(NOW + 5, PACE, FINGERPRINT)
        assert soon.evicted_at == NOW + 5


class TestLostLogins:
    """A login whose answer got lost may have opened a session (P§9.37)."""

    def test_once_more_then_five_minutes_doubling(self) -> None:
        """The first may be repeated at once; then a hold of five minutes that doubles up to an hour, for ever."""
        ledger = Ledger()
        waits = []
        for _ in range(8):
            ledger = ledger.with_login(NOW, PACE).with_login_lost(NOW, PACE, "why")
            hold = ledger.hold_at(NOW)
            waits.append(None if hold is None else hold.until - NOW)
        assert waits == [None, 300, 600, 1200, 2400, 3600, 3600, 3600]
        assert ledger.hold is not None
        assert ledger.hold.kind == "lost"

    def test_a_server_may_be_away_for_months(self) -> None:
        """No number of lost logins is too many to count."""
        ledger = Ledger(lost=100_000).with_login_lost(NOW, PACE, "why")
        assert ledger.hold_at(NOW) == Hold(
            "lost", NOW + HOUR, "a login may have been sent, and brought no answer that could be used (why)"
        )

    @pytest.mark.parametrize("outcome", ["granted", "refused"])
    def test_an_answer_resets_it(self, outcome: str) -> None:
        """As soon as the server answers, granted or refused, the count starts anew."""
        ledger = (
            Ledger().with_login_lost(NOW, PACE, "why").with_login_lost(NOW, PACE, "why").with_login(NOW, PACE)
        )
        if outcome == "granted":
            ledger = ledger.with_login_granted(NOW, PACE, FINGERPRINT)
        else:
            ledger = ledger.with_login_refused(NOW, PACE, FINGERPRINT, "no", disguised=False)
        assert (ledger.lost, ledger.hold) == (0, None)

    def test_they_count_as_failed(self) -> None:
        """The server may have counted it as a failure."""
        assert Ledger().with_login(NOW, PACE).with_login_lost(NOW, PACE, "why").failed_logins == (NOW,)


class TestLatch:
    """Refused credentials (P§9.6, P§9.7)."""

    @pytest.mark.parametrize(
        ("disguised", "proven"), [(True, ()), (True, ("other",)), (False, (FINGERPRINT,))]
    )
    def test_refused_is_refused(self, *, disguised: bool, proven: tuple[str, ...]) -> None:
        """Credentials that never worked, or that got a plain refusal, are latched without an end."""
        latch = refused(Ledger(proven=proven), NOW, disguised=disguised).latch(FINGERPRINT)
        assert latch is not None
        assert (latch.fingerprint, latch.text, latch.until) == (FINGERPRINT, "no", None)

    def test_proven_credentials_get_another_try(self) -> None:
        """Credentials that have worked before are tried again after an hour, doubling to a day: it may be throttling."""
        ledger, waits = Ledger(proven=(FINGERPRINT,)), []
        for _ in range(8):
            ledger = refused(ledger, NOW)
            latch = ledger.latch(FINGERPRINT)
            assert latch is not None
            assert latch.until is not None
            waits.append((latch.until - NOW) / HOUR)
        assert waits == [1, 2, 4, 8, 16, 24, 24, 24]

    def test_the_pause_belongs_to_the_credentials(self) -> None:
        """A latch of other credentials does not lengthen the first pause of these."""
        ledger = refused(Ledger(proven=("other",)), NOW, fingerprint="other")
        latch = refused(Ledger(proven=(FINGERPRINT,), latches=ledger.latches), NOW).latch(FINGERPRINT)
        assert latch is not None
        assert latch.pause == HOUR

    def test_each_of_the_users_credentials_has_one(self) -> None:
        """Two API keys of a user that are refused are both known, whichever was refused later, and a grant lifts its own."""
        ledger = refused(refused(Ledger(), NOW, fingerprint="one"), NOW, fingerprint="two")
        assert [latch.fingerprint for latch in ledger.latches] == ["one", "two"]
        again = refused(ledger, NOW, fingerprint="one")
        assert [latch.fingerprint for latch in again.latches] == ["two", "one"]
        lifted = again.with_login(NOW, PACE).with_login_granted(NOW, PACE, "two")
        assert [latch.fingerprint for latch in lifted.latches] == ["one"]
        assert ledger.latch("three") is None

    def test_the_newest_are_kept(self) -> None:
        """Of refused, and of proven, credentials the last eight are remembered: a record must not grow without end."""
        ledger = Ledger()
        for number in range(20):
            ledger = refused(ledger, NOW, fingerprint=str(number))
            ledger = ledger.with_login(NOW, PACE).with_login_granted(NOW, PACE, f"good {number}")
        assert [latch.fingerprint for latch in ledger.latches] == [str(number) for number in range(12, 20)]
        assert ledger.proven == tuple(f"good {number}" for number in range(12, 20))

    def test_a_grant_lifts_it(self) -> None:
        """A granted login takes the latch away, and the next refusal starts with an hour again."""
        ledger = refused(refused(Ledger(proven=(FINGERPRINT,)), NOW), NOW)
        ledger = ledger.with_login(NOW, PACE).with_login_granted(NOW, PACE, FINGERPRINT)
        assert not ledger.latches
        latch = refused(ledger, NOW).latch(FINGERPRINT)
        assert latch is not None
        assert latch.pause == HOUR


class TestJoining:
    """Two ledgers of one account: one was kept while the other could not be reached."""

    def test_what_was_spent_adds_up(self) -> None:
        """Entries that both have count once; those that were done away with in the one do not come back from the other."""
        since = Ledger((NOW,), (NOW,), (NOW,), (NOW,))
        one = Ledger((), (NOW, NOW + 1), (NOW, NOW + 1), (NOW + 1,))
        other = Ledger((NOW, NOW + 2), (NOW,), (NOW, NOW + 1, NOW + 2), (NOW, NOW + 2))
        joined = one.joined(other, since)
        assert joined.failed_logins == (NOW + 2,)
        assert joined.logins == (NOW, NOW + 1)
        assert joined.renewals == (NOW, NOW + 1, NOW + 2)
        assert joined.unscheduled == (NOW + 1, NOW + 2)

    @pytest.mark.parametrize(
        ("mine", "theirs", "both"), [(None, 5.0, 5.0), (7.0, 5.0, 7.0), (None, None, None)]
    )
    def test_the_last_grant_is_the_later_one(
        self, mine: float | None, theirs: float | None, both: float | None
    ) -> None:
        """Planned renewals keep their distance from whichever was the last."""
        assert Ledger(renewed_at=mine).joined(Ledger(renewed_at=theirs), Ledger()).renewed_at == both

    def test_the_longer_pauses_hold(self) -> None:
        """Of back-off, allowance and lost logins the more careful one."""
        one = Ledger(retry_at=5.0, unscheduled_at=1.0, pause=60.0, lost=0)
        other = Ledger(retry_at=3.0, unscheduled_at=9.0, pause=120.0, lost=2)
        for joined in (one.joined(other, Ledger()), other.joined(one, Ledger())):
            assert (joined.retry_at, joined.unscheduled_at, joined.pause, joined.lost) == (5.0, 9.0, 120.0, 2)

    def test_a_new_hold_holds(self) -> None:
        """The one that ends later; one that was there before, and that others have lifted, does not come back."""
        short, long = Hold("penalty", NOW + 15, "x"), Hold("locked", NOW + HOUR, "x")
        assert Ledger().joined(Ledger(hold=short), Ledger()).hold == short
        assert Ledger(hold=long).joined(Ledger(hold=short), Ledger()).hold == long
        assert Ledger(hold=short).joined(Ledger(hold=long), Ledger()).hold == long
        assert Ledger().joined(Ledger(hold=long), Ledger(hold=long)).hold is None
        assert Ledger(hold=short).joined(Ledger(), Ledger(hold=short)).hold == short

    def test_a_new_latch_holds(self) -> None:
        """It takes the place of an older one of the same credentials; one that others have lifted stays away."""
        old, new, others = (
            Latch("f", "no", NOW, 5.0),
            Latch("f", "no", NOW + HOUR, 9.0),
            Latch("o", "no", None),
        )
        assert Ledger(latches=(old, others)).joined(Ledger(latches=(new,)), Ledger()).latches == (others, new)
        assert Ledger().joined(Ledger(latches=(old,)), Ledger(latches=(old,))).latches == ()
        many = tuple(Latch(str(number), "no", None) for number in range(8))
        assert Ledger(latches=many).joined(Ledger(latches=(new,)), Ledger()).latches == (*many[1:], new)

    def test_what_was_proven_stays_proven(self) -> None:
        """Credentials that worked in either place, each once, the newest last, eight at most."""
        joined = Ledger(proven=("a", "b")).joined(Ledger(proven=("z", "b", "c")), Ledger(proven=("z",)))
        assert joined.proven == ("a", "b", "c")
        many = tuple(str(number) for number in range(8))
        assert Ledger(proven=many).joined(Ledger(proven=("c",)), Ledger()).proven == (*many[1:], "c")

    def test_a_new_eviction_counts(self) -> None:
        """With its pause; where nothing has happened, what others know of evictions stays."""
        mine, theirs = (
            Ledger(evicted_at=NOW, eviction_pause=600.0),
            Ledger(evicted_at=NOW + 9, eviction_pause=1200.0),
        )
        joined = mine.joined(theirs, mine)
        assert (joined.evicted_at, joined.eviction_pause) == (NOW + 9, 1200.0)
        joined = theirs.joined(mine, mine)
        assert (joined.evicted_at, joined.eviction_pause) == (NOW + 9, 1200.0)

    def test_joining_twice_changes_nothing_more(self) -> None:
        """A storage that fails between two of these is simply told again."""
        since = Ledger(renewals=(NOW,))
        other = Ledger(renewals=(NOW, NOW + 1), hold=Hold("locked", NOW + HOUR, "x"), proven=("a",))
        once = Ledger(renewals=(NOW,)).joined(other, since)
        assert once.joined(other, since) == once


class TestHolds:
    """What forbids calls for a while."""

    def test_a_hold_ends(self) -> None:
        """A hold holds until its moment, and not at it."""
        ledger = Ledger(hold=Hold("captcha", NOW, "a captcha"))
        assert ledger.hold_at(NOW - 0.001) == ledger.hold
        assert ledger.hold_at(NOW) is None
        assert Ledger().hold_at(NOW) is None

    def test_a_longer_one_stays(self) -> None:
        """A short hold does not shorten a longer one; but of two penalties the newer one counts, with its ticket."""
        locked, penalty = Hold("locked", NOW + HOUR, "locked"), Hold("penalty", NOW + 15, "slow down")
        assert Ledger().with_hold(penalty).hold == penalty
        assert Ledger().with_hold(locked).with_hold(penalty).hold == locked
        assert Ledger().with_hold(penalty).with_hold(locked).hold == locked
        shorter = Hold("locked", NOW + 5, "locked")
        assert Ledger().with_hold(locked).with_hold(shorter).hold == locked
        later = Hold("penalty", NOW + 5, "slow down", "ticket-4713")
        assert Ledger().with_hold(penalty).with_hold(later).hold == later

    def test_a_ticket_outlives_its_hold(self) -> None:
        """A hold that is over is forgotten, unless it has a ticket that can be redeemed now."""
        over = Hold("penalty", NOW - 1, "slow down", "ticket-4713")
        assert Ledger(hold=over).pruned(NOW, HOUR).hold == over
        for kind in ("penalty", "captcha", "locked", "evicted", "lost", "protocol"):
            assert Ledger(hold=Hold(kind, NOW, "x")).pruned(NOW, HOUR).hold is None
            assert Ledger(hold=Hold(kind, NOW + 1, "x")).pruned(NOW, HOUR).hold is not None

    def test_a_login_works_off_what_is_over(self) -> None:
        """Its ticket is redeemed with that login and with no other one; what still forbids calls stays."""
        over = Hold("penalty", NOW, "slow down", "ticket-4713")
        assert Ledger(hold=over).with_login(NOW, PACE).hold is None
        locked = Hold("locked", NOW + 1, "locked")
        assert Ledger(hold=locked).with_login(NOW, PACE).hold == locked

    def test_an_entry_of_another_clock(self) -> None:
        """One that is far ahead was made before a clock was set back; one that is a moment ahead keeps its moment, by which
        whoever has just made it takes it back.
        """
        ledger = Ledger(failed_logins=(NOW - HOUR, NOW - 1, NOW + 59, NOW + 61))
        assert ledger.pruned(NOW, HOUR).failed_logins == (NOW - 1, NOW + 59, NOW)

    @pytest.mark.parametrize("kind", ["penalty", "evicted", "lost", "protocol"])
    def test_an_answer_ends_a_hold(self, kind: HoldKind) -> None:
        """Whatever stood in the way of a token is over when there is one, or when the server has said no."""
        held = Ledger(hold=Hold(kind, NOW + HOUR, "x"))
        assert held.with_grant(NOW).hold is None
        assert held.with_login_refused(NOW, PACE, "f", "no", disguised=False).hold is None

    @pytest.mark.parametrize("kind", ["captcha", "locked"])
    def test_a_late_answer_ends_no_lock_out(self, kind: HoldKind) -> None:
        """Nothing is sent during a hold: another process was locked out while the answer was on its way."""
        hold = Hold(kind, NOW + HOUR, "x")
        for until in (hold, replace(hold, until=NOW)):
            kept = until if until is hold else None
            held = Ledger(hold=until)
            assert held.with_grant(NOW).hold == kept
            assert held.with_login_refused(NOW, PACE, "f", "no", disguised=False).hold == kept

    def test_a_human_may_forgive(self) -> None:
        """reset() forgets holds, the latch and every pause; what was spent stays spent, what was proven stays proven."""
        spent = Ledger(
            failed_logins=(NOW,),
            logins=(NOW,),
            renewals=(NOW,),
            unscheduled=(NOW,),
            renewed_at=NOW,
            proven=("x",),
        )
        troubled = refused(spent.with_renewal_failed(NOW, 9.0), NOW, fingerprint="x").without_last_login()
        troubled = (
            troubled.with_eviction(NOW, PACE).with_eviction(NOW, PACE).with_login_lost(NOW, PACE, "why")
        )
        assert troubled != spent
        assert troubled.forgiven() == spent


@given(st.lists(st.floats(NOW - 2 * HOUR, NOW + HOUR), max_size=12), st.floats(1, HOUR))
def test_pruning_forgets_what_has_left_the_hour(entries: list[float], hour: float) -> None:
    """What is left after pruning lies within the hour, nothing that lies there is lost, and pruning twice changes
    nothing.
    """
    moments = tuple(entries)
    pruned = Ledger(moments, moments, moments, moments).pruned(NOW, hour)
    for kept in (pruned.failed_logins, pruned.logins, pruned.renewals, pruned.unscheduled):
        assert len(kept) == sum(1 for entry in moments if entry > NOW - hour)
        assert all(NOW - hour < entry <= NOW + hour / 60 for entry in kept)
    assert pruned.pruned(NOW, hour) == pruned


def test_every_moment_can_be_moved() -> None:
    """A ledger whose clock was wrong by so much: everything that has a moment is moved, and nothing else changes."""
    latch, open_end = Latch("a", "no", NOW + 60, 60.0), Latch("b", "no", None)
    full = Ledger(
        failed_logins=(NOW,),
        logins=(NOW - 1,),
        renewals=(NOW - 2,),
        unscheduled=(NOW - 3,),
        renewed_at=NOW - 4,
        retry_at=NOW + 5,
        unscheduled_at=NOW + 6,
        pause=7.0,
        evicted_at=NOW - 8,
        hold=Hold("locked", NOW + 9, "x"),
        latches=(latch, open_end),
    )
    moved = full.shifted(100.0)
    assert moved.shifted(-100.0) == full
    assert (moved.failed_logins, moved.logins, moved.renewals, moved.unscheduled) == (
        (NOW + 100,),
        (NOW + 99,),
        (NOW + 98,),
        (NOW + 97,),
    )
    assert (moved.renewed_at, moved.retry_at, moved.unscheduled_at) == (NOW + 96, NOW + 105, NOW + 106)
    assert (moved.evicted_at, moved.pause, moved.hold) == (NOW + 92, 7.0, Hold("locked", NOW + 109, "x"))
    assert [entry.until for entry in moved.latches] == [NOW + 160, None]


def test_a_long_pause_is_over_one_day() -> None:
    """Unplanned renewals that helped nobody wait longer each time; when nobody has asked for long, it is another matter."""
    ledger = Ledger()
    for _ in range(3):
        ledger = ledger.with_renewal(NOW, PACE, scheduled=False)
    assert ledger.pause == 4 * PACE.first_pause
    soon = ledger.unscheduled_at + PACE.longest_pause - 1
    assert ledger.with_renewal(soon, PACE, scheduled=False).pause == 8 * PACE.first_pause
    assert ledger.with_renewal(soon + 1, PACE, scheduled=False).pause == PACE.first_pause
