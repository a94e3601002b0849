"""What to do about a refusal: every cause that is known has its own advice, wherever its words are found."""

import pytest

from tradovate_auth import _advice, errors
from tradovate_auth._advice import BADLY_FORMED, INVALID_FIELDS, USER_STATUS, advice_on

WRONG = "Incorrect username or password. Please try again, noting that passwords are case-sensitive."
OURS = {
    "TemporaryLocked": (f"{USER_STATUS} 'TemporaryLocked': no", "unlocked"),
    "TemporarilyLocked": (f"{USER_STATUS} 'TemporarilyLocked': no", "unlocked"),
    "Closed": (f"{USER_STATUS} 'Closed': {INVALID_FIELDS}: name", "support"),
    "UnconfirmedEmail": (f"{USER_STATUS} 'UnconfirmedEmail': Access denied", "link"),
    "Initiated": (f"{USER_STATUS} 'Initiated': no", "registration"),
    "another status": (f"{USER_STATUS} 'Suspended': no", "this user's status means"),
    "violations": (f"{INVALID_FIELDS}: appId", "Correct the fields"),
    "400": (BADLY_FORMED, "wrong kind"),
}
SERVERS = {
    "another host": ("This endpoint should be called on demo.tradovateapi.com", "environment"),
    "no app": ("The app is not registered", "app id, cid and sec"),
    "no permission": ("ACCESS IS DENIED", "permitted"),
    "no permission either": ("Access denied.", "permitted"),
}


@pytest.mark.parametrize("name", [*OURS, *SERVERS])
def test_a_refusal_has_its_own_advice(name: str) -> None:
    """The advice on a refusal is that for its cause; a user who is not active comes before everything else."""
    text, says = (OURS | SERVERS)[name]
    assert says in str(advice_on(text, refused=True))


@pytest.mark.parametrize("name", OURS)
def test_what_stands_for_an_answer_means_the_same_everywhere(name: str) -> None:
    """Words of ours lead to the same advice in an answer that is no refusal."""
    text, says = OURS[name]
    assert says in str(advice_on(text, refused=False))


@pytest.mark.parametrize("name", SERVERS)
def test_the_servers_words_may_be_somebody_elses(name: str) -> None:
    """In an answer that is no refusal they may come from a proxy, and say nothing of the API key."""
    assert advice_on(f"the server answered 403: {SERVERS[name][0]}", refused=False) is None


@pytest.mark.parametrize("text", [WRONG, "the server answered 401", "Invalid credentials", ""])
def test_other_words_leave_it_to_the_error(text: str) -> None:
    """One text for every wrong credential: the error's own advice lists them."""
    assert advice_on(text, refused=True) is None


def test_no_two_causes_share_their_advice() -> None:
    """Each cause has one of its own, and none is that of the error itself."""
    known = dict((*_advice._BY_WORDS, *_advice._BY_THE_SERVERS_WORDS))
    assert len(set(known.values())) == len(known) - 2, "two spellings each of a locked user and of a denial"
    assert not set(known.values()) & {
        errors.LoginRefused.default_advice,
        errors.ProtocolError.default_advice,
    }
