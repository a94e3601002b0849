"""Twenty accounts of one machine in one storage: the server counts by address, and so do they together.

By real providers over real sockets; the hours are virtual. A token lives 80 minutes, and an address may ask for 15 renewals an
hour, of which the accounts spend 12 together: that is not enough for twenty, so some tokens end, and their accounts log in,
which the server does not count.
"""

from core_tools import World, at_once

from tradovate_auth import AccessToken, LoginRefused, Throttled, TradovateAuthError

ACCOUNTS = 20
MINUTE = 60.0
HOUR = 3_600.0


class Machine:
    """The accounts of one machine, each with a process that asks for its token once a minute.

    Args:
        world: Where it stands.
        passwords: By user name; the right one is "right".
    """

    def __init__(self, world: World, passwords: dict[str, str]) -> None:
        self.world = world
        for name in passwords:
            world.server.add_user(name, "right")
        self.providers = {
            name: world.provider(who={"name": name, "password": password}, on_event=None)
            for name, password in passwords.items()
        }
        self.tokens: dict[str, AccessToken] = {}
        self.errors: dict[str, TradovateAuthError] = {}
        self.failed: list[float] = []
        """When logins were refused, as the server counts them."""
        self.renewals: list[float] = []
        self._counted = world.server.counts

    def minutes(self, count: int) -> None:
        """Let every account ask once a minute; fail if there was no token for one."""
        for _ in range(count):
            self.minute()
            assert len(self.tokens) == len(self.providers), self.errors

    def minute(self) -> None:
        """Let every account ask, one after another, and a minute pass."""
        for name in self.providers:
            self._ask(name)
        self.world.clock.advance(MINUTE)

    def _ask(self, name: str) -> None:
        provider, before = self.providers[name], self.tokens.pop(name, None)
        self.errors.pop(name, None)
        try:
            self.tokens[name] = provider.get()
        except TradovateAuthError as error:
            self.errors[name] = error
        self.world.settled(provider)
        now, counts = self.world.clock.time(), self.world.server.counts
        logged_in = counts.logins_granted > self._counted.logins_granted
        self.failed += [now] * (counts.logins_refused - self._counted.logins_refused)
        self.renewals += [now] * (counts.renewals - self._counted.renewals)
        self._counted = counts
        early = before is not None and before.expires_at.timestamp() > now
        assert not (early and logged_in), f"{name} logged in before its token had ended"

    def keeps_the_limits(self) -> None:
        """Fail if the server has counted more in any hour than it tolerates, or has said so."""
        assert most_in_an_hour(self.failed) <= 5
        assert most_in_an_hour(self.renewals) <= 15
        counts = self.world.server.counts
        assert (counts.lockouts, counts.penalties) == (0, 0)


def most_in_an_hour(moments: list[float]) -> int:
    """Return how many of the moments lie in the fullest hour."""
    return max((sum(start <= each < start + HOUR for each in moments) for start in moments), default=0)


def accounts(password: str = "right", count: int = ACCOUNTS, first: int = 0) -> dict[str, str]:
    """Return so many users with this password."""
    return {f"trader{number}": password for number in range(first, first + count)}


def test_twenty_accounts_have_their_tokens_for_an_hour(world: World) -> None:
    """Twenty logins, none of which has to wait for another, and nothing else; each has a token at every minute."""
    machine = Machine(world, accounts())
    machine.minutes(60)
    machine.keeps_the_limits()
    assert (world.server.counts.logins, world.server.counts.renewals) == (ACCOUNTS, 0)


def test_twenty_accounts_share_the_renewals_of_one_address(world: World) -> None:
    """No hour of four has more renewals than the server grants, and every account has a token at every minute.

    For whom there is no renewal left, that token is used to its end, and only then replaced by a login.
    """
    machine = Machine(world, accounts())
    machine.minutes(240)
    machine.keeps_the_limits()
    assert world.server.counts.renewals >= 3 * 11  # what may be spent is spent, before anybody logs in
    assert world.server.counts.logins_refused == 0


def test_twenty_accounts_may_start_at_once(world: World) -> None:
    """Logins that are still on their way may fail, so they wait for each other; in the end all are granted."""
    machine = Machine(world, accounts())
    providers = iter(machine.providers.values())
    with world.time_flies(step=0.02):  # a login takes less than a minute also where the machine is busy
        tokens = at_once(ACCOUNTS, lambda: next(providers).get(timeout=None))
    assert {type(token) for token in tokens} == {AccessToken}
    assert (world.server.counts.logins, world.server.counts.logins_granted) == (ACCOUNTS, ACCOUNTS)


def test_wrong_passwords_of_some_lock_nobody_out(world: World) -> None:
    """Eight accounts with a wrong password come first, and the server would lock the address after five.

    Three may fail in an hour. The other accounts wait as long, and keep their tokens from then on; nobody is locked out.
    """
    machine = Machine(world, accounts("wrong", 8) | accounts("right", 12, first=8))
    with world.time_flies():  # while a login has failed within the last minute, the others wait for a second
        for _ in range(20):
            machine.minute()
    assert len(machine.failed) == 3
    assert {type(error) for error in machine.errors.values()} == {LoginRefused, Throttled}
    with world.time_flies():
        for _ in range(220):
            machine.minute()
    machine.keeps_the_limits()
    assert set(machine.tokens) == set(accounts("right", 12, first=8))
    assert {type(error) for error in machine.errors.values()} == {LoginRefused}
    assert len(machine.failed) == 8  # each was refused once, and is latched since
