"""Which 401s a renewal cannot cure."""

from tradovate_auth._refusals import Refusals
from tradovate_auth.testing import FakeClock

ORDER = ("POST", "/v1/order/place")
ACCOUNTS = ("GET", "/v1/account/list")


def test_a_first_401_is_not_final() -> None:
    """A call that was refused once may be cured by a renewal."""
    refusals = Refusals()
    assert not refusals.is_final(1, *ORDER)
    refusals.ask(1, *ORDER)
    assert not refusals.is_final(1, *ORDER)


def test_refused_again_straight_after_a_renewal_is_final() -> None:
    """The same call, refused with the token that its own renewal brought: no renewal helps in this generation."""
    refusals = Refusals()
    refusals.ask(1, *ORDER)
    refusals.brought(2)
    assert refusals.is_final(2, *ORDER)
    assert refusals.is_final(2, *ORDER)


def test_only_the_same_call_is_final() -> None:
    """Another method or another path is another question."""
    refusals = Refusals()
    refusals.ask(1, *ORDER)
    refusals.brought(2)
    assert not refusals.is_final(2, *ACCOUNTS)
    assert not refusals.is_final(2, "GET", ORDER[1])
    assert refusals.is_final(2, *ORDER)


def test_a_new_generation_asks_anew() -> None:
    """What was final for one token is not for the next one, which nobody has asked for on its account."""
    refusals = Refusals()
    refusals.ask(1, *ORDER)
    refusals.brought(2)
    assert refusals.is_final(2, *ORDER)
    assert not refusals.is_final(3, *ORDER)


def test_a_token_that_no_401_brought_is_not_judged() -> None:
    """A renewal by the schedule, or of another process, says nothing about the call."""
    refusals = Refusals()
    refusals.ask(1, *ORDER)
    assert not refusals.is_final(2, *ORDER)


def test_a_cure_is_noticed_once() -> None:
    """A success with the token that a 401 has brought proves the renewal right; later ones prove nothing more."""
    refusals = Refusals()
    refusals.ask(1, *ORDER)
    refusals.brought(2)
    assert not refusals.cured(1)
    assert refusals.cured(2)
    assert not refusals.cured(2)


def test_nothing_is_cured_before_anything_was_asked() -> None:
    """A success with an ordinary token is no cure."""
    assert not Refusals().cured(1)


def test_after_a_cure_the_session_may_die_again() -> None:
    """A call that a renewal has cured and that is refused later, in the same generation, is worth another renewal."""
    refusals = Refusals()
    refusals.ask(1, *ORDER)
    refusals.brought(2)
    assert refusals.cured(2)
    assert not refusals.is_final(2, *ORDER)


def test_the_memory_has_a_bound() -> None:
    """256 calls are remembered; of more, the oldest are forgotten."""
    refusals = Refusals()
    paths = [f"/v1/{number}" for number in range(300)]
    for path in paths:
        refusals.ask(1, "GET", path)
    refusals.brought(2)
    final = [path for path in paths if refusals.is_final(2, "GET", path)]
    assert final == paths[-256:]
    refusals.ask(2, "GET", paths[0])
    refusals.brought(3)
    assert refusals.is_final(3, "GET", paths[0])
    assert not refusals.is_final(2, "GET", paths[44]), "the oldest was pushed out"
    assert refusals.is_final(2, "GET", paths[45])


def test_long_after_the_renewal_a_401_is_no_verdict_on_the_key() -> None:
    """A call that could not be sent again after its renewal, and is refused an hour later, is worth another one."""
    clock = FakeClock()
    refusals = Refusals(clock.elapsed)
    refusals.ask(1, *ORDER)
    refusals.brought(2)
    clock.advance(3600)
    assert not refusals.is_final(2, *ORDER)
