"""What a storage is given back that had been away: everything that has happened since, and nothing else."""

from dataclasses import replace

import pytest
from values import HOUR, LIFETIME, NOW, at
from values import token as some_token

from tradovate_auth import AccessToken
from tradovate_auth._holds import Hold, Latch
from tradovate_auth._ledger import Ledger
from tradovate_auth._restoring import Left, gone_back, rank, restored
from tradovate_auth.storage import Record

LEFT = Record(revision=7, generation=4, tokens={"8": some_token(generation=4)}, refused={"8": 2}, offset=5.0)
LIVING = some_token(generation=3)


@pytest.mark.parametrize(
    ("token", "better"),
    [
        (some_token(generation=4), True),
        (some_token(generation=2, issued_at=at(NOW + 99)), False),
        (some_token(generation=3, issued_at=at(NOW + 1)), True),
        (some_token(generation=3, issued_at=at(NOW - 1)), False),
        (some_token(generation=9, expires_at=at(NOW + 5)), False),
    ],
)
def test_tokens_are_ordered(token: AccessToken, *, better: bool) -> None:
    """Who lives comes before who has ended, then the higher generation, then the server's later moment of issue."""
    assert (rank(token, NOW + 10) > rank(LIVING, NOW + 10)) is better


def test_the_living_come_first_only_while_they_live() -> None:
    """When both have ended, the generation decides."""
    ended = some_token(generation=9, expires_at=at(NOW + 5))
    assert rank(ended, NOW + LIFETIME) > rank(LIVING, NOW + LIFETIME)


def test_nothing_has_happened() -> None:
    """Where nothing is known beyond what was known then, what was found stays as it is."""
    found = replace(LEFT, revision=9, ledger=Ledger(renewals=(NOW,)))
    assert Left(LEFT).joined(found, LEFT) == found


def test_a_refusal_counts() -> None:
    """A token that an auth endpoint has refused meanwhile is refused for everybody, whichever key it belongs to."""
    known = replace(LEFT, refused={"8": 4, "9": 1})
    assert Left(LEFT).joined(LEFT, known).refused == {"8": 4, "9": 1}


def test_a_refusal_does_not_reach_what_others_have_obtained() -> None:
    """A generation that both have made is two tokens: the refusal of the one says nothing of the other."""
    known = replace(LEFT, generation=6, refused={"8": 6})
    found = replace(LEFT, generation=6, refused={"8": 3}, tokens={"8": some_token(generation=6)})
    assert Left(LEFT).joined(found, known).refused == {"8": 4}


def test_what_others_refused_stays_refused() -> None:
    """What the storage knows better stays."""
    found = replace(LEFT, refused={"8": 5, "9": 3})
    assert Left(LEFT).joined(found, LEFT).refused == {"8": 5, "9": 3}


def test_what_others_did_away_with_stays_away() -> None:
    """A human has lifted the hold meanwhile; that this process knew of it before brings nothing back."""
    hold = Hold("locked", NOW + HOUR, "x")
    held = replace(LEFT, ledger=Ledger(hold=hold, latches=(Latch("f", "no", None),)))
    assert Left(held).joined(LEFT, held).ledger == Ledger()
    known = replace(held, ledger=replace(held.ledger, hold=replace(hold, until=NOW + 2 * HOUR)))
    assert Left(held).joined(LEFT, known).ledger.hold == known.ledger.hold


@pytest.mark.parametrize(
    ("found", "back"),
    [
        (replace(LEFT, revision=6), True),
        (replace(LEFT, revision=7), False),
        (replace(LEFT, revision=8), False),
        (Record(), False),
        (replace(LEFT, revision=6, ledger=Ledger(renewed_at=NOW)), True),
        (replace(LEFT, revision=6, ledger=Ledger(renewed_at=NOW + 1)), False),
    ],
)
def test_what_has_gone_back(found: Record, *, back: bool) -> None:
    """An earlier revision, and no token has been granted since by its own word; an empty storage is another matter."""
    assert gone_back(found, replace(LEFT, ledger=Ledger(renewed_at=NOW))) is back


def test_what_is_known_takes_its_place() -> None:
    """Tokens and hosts are the known ones; what was spent or refused there since counts too."""
    known = replace(LEFT, generation=5, tokens={"8": some_token(generation=5), "9": some_token(generation=2)})
    found = replace(LEFT, revision=6, refused={"8": 4, "9": 3}, ledger=Ledger(failed_logins=(NOW,)))
    record = restored(found, replace(known, ledger=Ledger(renewals=(NOW - 1,)), refused={"8": 2, "7": 1}))
    assert record.tokens == {"8": known.tokens["8"]}
    assert record.refused == {"7": 1, "8": 4, "9": 3}
    assert (record.generation, record.ledger) == (5, Ledger(failed_logins=(NOW,), renewals=(NOW - 1,)))
