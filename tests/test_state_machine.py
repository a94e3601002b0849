"""Several processes, one storage and a server that says and does everything, in virtual time and in any order.

The machinery is the real one, the world that of `fleet_model`. The rules below choose what happens; a referee with bookkeeping
of its own judges every call that leaves, every record that is saved and every token that is handed out:

    never a login while an unexpired token that no auth endpoint has refused lies in the storage, or in that process' hand
    never more than 12 renewals, 3 failed and 5 granted logins in a rolling hour, over all processes and restarts
    never a call while the server, a lost login or an eviction forbids it
    never a refused or ended token in the hand of a process that has looked; generations only grow

And in the end, when the server and the storage are well again, every process has a token that the server takes.

`STATE_MACHINE_EXAMPLES=5000 pytest --timeout=0` tries more, and others each time; the default is small and always the same.
"""

import os
from typing import Final

from arena import Arena, Bot
from fleet_server import Host, Trouble
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tradovate_auth.testing.emulator._limits import Captcha
from tradovate_auth.testing.emulator._names import LOGIN, RENEWAL
from tradovate_auth.transport import Reply

_EXAMPLES: Final = os.environ.get("STATE_MACHINE_EXAMPLES")
_BOTS: Final = 3
_MINUTE: Final = 60.0
_MINUTES_PER_DAY: Final = 24 * 60
_ASSIGNED: Final = "demo-7.tradovateapi.com"
_NOT_THE_ONE: Final = {
    "gone": Trouble("unreachable"),
    "silent": Trouble("lost before"),
    **{str(status): Trouble("fault", 0.0, Reply(status, {}, b"")) for status in (307, 404, 421)},
}
"""What an assigned host does that is not the one to ask any more."""

seconds = st.sampled_from(
    [0.1, 1.0, 5.0, 20.0, 61.0, 300.0, 601.0, 1_500.0, 3_601.0, 3_950.0, 4_790.0, 9_000.0]
)
bots = st.integers(0, _BOTS - 1)
troubles = st.one_of(
    st.builds(
        Trouble,
        st.sampled_from(
            ["none", "unreachable", "lost before", "lost after", "killed before", "killed after"]
        ),
        st.sampled_from([0.0, 0.5, 12.0]),
    ),
    st.builds(
        Trouble,
        st.just("fault"),
        st.sampled_from([0.0, 3.0]),
        st.builds(Reply, st.sampled_from([200, 408, 429, 423, 500, 503]), st.just({}), st.just(b"<html>")),
    ),
    st.builds(
        Trouble,
        st.just("garbage"),
        st.just(0.0),
        st.builds(
            Reply,
            st.just(200),
            st.just({}),
            st.sampled_from(
                [b'{"name": "trader"}', b'{"accessToken": "a b", "expirationTime": "soon"}', b"{"]
            ),
        ),
    ),
)


odd_dates = st.builds(
    Trouble,
    st.just("none"),
    st.sampled_from([0.0, 0.5]),
    date=st.sampled_from([7_200.0, -7_200.0, 90_000.0, -90_000.0]),
)


class Market(RuleBasedStateMachine):
    """A server with all its moods, and the processes of one user."""

    @initialize(errors=st.sampled_from([0.0, 0.0, 100.0]), extends=st.booleans(), warm=st.integers(0, _BOTS))
    def begin(self, *, errors: float, extends: bool, warm: int) -> None:
        """Start three processes on two machines, some of them with a token."""
        self.arena = Arena(errors, old_token_grace=None, lockout_extends=extends, evicted_style="401")
        self.hosts = [Host("10.0.0.1", errors), Host("10.0.0.1", errors), Host("10.0.0.2", -errors)]
        self.password = True
        self.bots = [self._start(number) for number in range(_BOTS)]
        for number in range(warm):
            self.somebody_waits(number, None)

    def _start(self, number: int) -> Bot:
        return Bot(self.arena, self.arena.server.credentials, self.hosts[number])

    @rule(seconds=seconds)
    def time_passes(self, seconds: float) -> None:
        """Let timers ring and tokens end."""
        self.arena.run(seconds)

    @rule(number=bots, meanwhile=st.none() | bots)
    def somebody_waits(self, number: int, meanwhile: int | None) -> None:
        """Let somebody ask a process for the token; and somebody another one, while the first is on its way."""
        if meanwhile is not None:  # while the first is on its way, if that takes time
            self.arena.at(self.arena.now + 0.1, lambda _: self.bots[meanwhile].demand())
        self.bots[number].demand()
        self.arena.run(0.0)

    @rule(number=bots)
    def ordinary_call(self, number: int) -> None:
        """Use the token; a 401 is told to the provider."""
        self.bots[number].ordinary_call()
        self.arena.run(0.0)

    @rule(number=bots, times=st.integers(1, 3))
    def gateway_faults(self, number: int, times: int) -> None:
        """Answer ordinary calls with 503, the third of which in a row makes a provider wonder."""
        bot = self.bots[number]
        for _ in range(times):
            if bot.token is not None:
                bot.provider.report(bot.token, 503)
        bot.plan(self.arena.now)
        self.arena.run(0.0)

    @rule(number=bots)
    def restart(self, number: int) -> None:
        """End a process and start another in its place, which knows nothing."""
        self.bots[number].kill()
        self.arena.referee.dead(self.bots[number])
        self.bots[number] = self._start(number)

    @rule(troubles=st.lists(troubles, min_size=1, max_size=3))
    def next_calls(self, troubles: list[Trouble]) -> None:
        """Choose what happens to the next auth calls."""
        self.arena.next_calls = troubles

    @rule(trouble=troubles)
    def calls_from_now_on(self, trouble: Trouble) -> None:
        """Choose what happens to all auth calls until something else is chosen."""
        self.arena.lasting = trouble if not trouble.kind.startswith("killed") else Trouble()

    @rule(pause=st.sampled_from([20.0, 45.0, 150.0]), evicted=st.sampled_from([0, 0, 1, 3, 10]))
    def busy_hour(self, pause: float, evicted: int) -> None:
        """Let everybody make calls, and wait for a token, for an hour and a half; another client may fight for the session."""
        for turn in range(int(90 * _MINUTE / pause)):
            if evicted and turn % evicted == 0:
                self.arena.server.evict()
            for bot in self.bots:
                bot.ordinary_call()
                if bot.token is None:
                    bot.demand()
            self.arena.run(pause)

    @rule(times=st.integers(1, 2))
    def another_client_logs_in(self, times: int) -> None:
        """Let somebody else open sessions of this user: two of them close ours."""
        self.arena.server.evict(times)

    @rule(grace=st.sampled_from([None, 0.0, 30.0]), style=st.sampled_from(["200", "401"]))
    def server_changes(self, grace: float | None, style: str) -> None:
        """Choose how long a renewed token lives on, and how a login is refused."""
        self.arena.server.configure(old_token_grace=grace, refusal_style=style)

    @rule(
        style=st.sampled_from(["401", "408", "429", "500", "502"]),
        renewals=st.sampled_from(["401", "like calls"]),
    )
    def evictions_change(self, style: str, renewals: str) -> None:
        """Choose what the calls of a closed session meet, and whether its renewals meet the same."""
        self.arena.server.configure(evicted_style=style, evicted_renewals=renewals)

    @precondition(lambda self: self.arena.knows_the_clock)
    @rule(first=odd_dates, others=st.lists(troubles | odd_dates, max_size=2))
    def odd_date(self, first: Trouble, others: list[Trouble]) -> None:
        """Let the `Date` of the next answer be hours off, if it is a grant.

        Not before a right one was read: until then nobody knows that the server's clock is another than the storage's.
        """
        self.arena.next_calls = [first, *others]

    @rule(
        endpoint=st.sampled_from([LOGIN, RENEWAL]),
        wait=st.sampled_from([1.0, 15.0, 400.0]),
        captcha=st.sampled_from([None, None, "false", True, "true"]),
        times=st.integers(1, 4),
        status=st.sampled_from([200, 429, 500]),
        required=st.booleans(),
    )
    def penalties(
        self, *, endpoint: str, wait: float, captcha: Captcha, times: int, status: int, required: bool
    ) -> None:
        """Answer the next auth calls with a ticket, or ask for a captcha."""
        server = self.arena.server
        server.configure(ticket_required=required)
        server.state.limits.penalize(endpoint, seconds=wait, captcha=captcha, times=times, status=status)

    @rule(
        host=st.integers(0, 2), status=st.sampled_from([423, 429]), retry=st.sampled_from(["none", "seconds"])
    )
    def lock_out(self, host: int, status: int, retry: str) -> None:
        """Lock a machine out for an hour, which in some worlds every call during it begins anew."""
        server = self.arena.server
        server.configure(retry_after=retry)
        server.state.limits.lock_out(self.hosts[host].address, status, 3_600.0, server.now())

    @rule(assigned=st.booleans(), state=st.sampled_from(["well", *_NOT_THE_ONE]))
    def hosts_move(self, *, assigned: bool, state: str) -> None:
        """Assign another host, or let it not be the one to ask any more."""
        self.arena.server.configure(api_hosts={"demo": _ASSIGNED} if assigned else None)
        self.arena.elsewhere = {_ASSIGNED: _NOT_THE_ONE[state]} if state != "well" else {}

    @rule()
    def storage_goes_or_comes(self) -> None:
        """Cut the storage off, or let it be back as it was."""
        self.arena.away = not self.arena.away

    @rule()
    def password_changes(self) -> None:
        """Change the password at the server, or back."""
        self.password = not self.password
        self._set_password()

    def _set_password(self) -> None:
        server = self.arena.server
        user = next(iter(server.state.users.values())).credentials
        password = server.credentials.password if self.password else "changed"
        server.state.add_user({**user, "password": password})

    @precondition(lambda self: not self.arena.away)
    @rule(number=bots)
    def human_resets(self, number: int) -> None:
        """Let a human say that the cause is gone."""
        self.bots[number].provider.reset()
        self.arena.referee.forgive()

    @invariant()
    def nobody_is_inside(self) -> None:
        """Between two rules nobody holds the lock."""
        if hasattr(self, "arena"):
            assert not self.arena.locked

    def teardown(self) -> None:
        """Make everything well, and let everybody wait: in the end each has a token that the server takes."""
        if not hasattr(self, "arena"):
            return
        arena = self.arena
        arena.away, arena.next_calls, self.password = False, [], True
        arena.lasting = Trouble()
        self._set_password()
        arena.server.configure(failed_login_excess="lockout", ticket_required=False)
        if arena.referee.latched:
            self.human_resets(0)
        for number, bot in enumerate(self.bots):
            if not bot.alive:
                self.restart(number)
        for _ in range(_MINUTES_PER_DAY):
            waiting = [bot for bot in self.bots if bot.token is None or not arena.server.good(bot.token)]
            if not waiting:
                break
            for bot in waiting:
                bot.ordinary_call()
                bot.demand()
            arena.run(_MINUTE)
        assert not waiting, [(bot.token, bot.failed) for bot in waiting]


TestMarket = Market.TestCase
TestMarket.settings = settings(
    max_examples=int(_EXAMPLES or 80),
    stateful_step_count=40,
    derandomize=_EXAMPLES is None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
