"""The page of answers: every row of it is what a caller sees, measured with all adapters on real sockets."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import answers_table
import pytest
from answers_table import ORDINARY, PAGE, SIGNING_IN, Row, cells_in, measured, page, standing_still
from cassette_scenarios import token_of
from core_tools import eventually
from stacks import ALL, REQUESTS, Stack, plain_environment

from tradovate_auth import Credentials, TransportError, _wire, errors
from tradovate_auth.testing import Emulator, FakeClock
from tradovate_auth.testing.emulator import Fault

__all__ = ["plain_environment"]  # a fixture

WRITTEN = PAGE.read_text(encoding="utf-8")
ADVICE = "run tests/answers_table.py --write, and look at what has changed"


@pytest.fixture(autouse=True)
def no_chance() -> Iterator[None]:
    """Measure as the page was measured."""
    with standing_still():
        yield


@pytest.mark.parametrize("row", SIGNING_IN, ids=str)
def test_answers_to_a_login_and_a_renewal(row: Row) -> None:
    """With a living token nobody notices the answer; without one, the error, its wait and its advice are the page's."""
    assert measured(row, "signing in") in cells_in(WRITTEN)[0], ADVICE


@pytest.mark.parametrize("row", ORDINARY, ids=str)
def test_answers_to_any_other_call(row: Row) -> None:
    """What a GET and a POST see, and what is sent to the auth endpoints meanwhile, is what the page says."""
    assert measured(row, "ordinary") in cells_in(WRITTEN)[1], ADVICE


def test_the_page_is_the_one_that_is_generated() -> None:
    """The page has a line for each row, in order, and no other word by hand."""
    first, second = cells_in(WRITTEN)
    assert page(first, second) == WRITTEN, ADVICE
    for lines, rows in ((first, SIGNING_IN), (second, ORDINARY)):
        assert [line.split(" | ")[0] for line in lines] == [f"| {row.name}" for row in rows], ADVICE


def test_whoever_holds_a_token_notices_nothing() -> None:
    """No answer to a renewal reaches a caller whose token lives: the page has 200 in every row."""
    assert {line.split(" | ")[1] for line in cells_in(WRITTEN)[0]} == {"200"}


def test_nothing_but_our_own_errors_comes_out() -> None:
    """Whatever the server says to a login: a token, or an error of ours with its advice."""
    for line in cells_in(WRITTEN)[0]:
        sees, advice = re.split(r" ?\| ?", line)[4:6]
        assert "200" in sees or (sees.split("`")[1] in errors.__all__ and advice)


def test_every_documented_verdict_has_a_row() -> None:
    """The rows lead to each of the verdicts that an answer may have."""
    found = set()
    for row in SIGNING_IN:
        with Emulator(clock=FakeClock()) as server:
            row.arrange(server, "login")
            if not server.running:
                continue
            call = _wire.login_call(Credentials(**server.credentials), server.url)
            try:
                found.add(type(_wire.read_reply(REQUESTS.transport().send(call, 5.0))))
            except TransportError:
                continue
    assert found == set(get_args(_wire.Verdict))


def test_differences_are_told_apart() -> None:
    """Where two stacks see different things, the cell names them; where all see the same, it names none."""
    assert answers_table._merged({"200 | x": ["requests", "httpx"]}) == "200 | x"
    told = answers_table._merged({"200 | x": ["requests", "httpx"], "401 | x": ["aiohttp"]})
    assert told == "**requests, httpx:** 200; **aiohttp:** 401 | x"
    assert answers_table._merged({"200 | ": ["requests"], "401 | x": ["aiohttp"]}).endswith(
        " | **aiohttp:** x"
    )


def test_a_page_that_is_out_of_date_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command tells a page that is out of date from one that is not, and writes it only when asked to."""
    target = tmp_path / "answers.md"
    monkeypatch.setattr(answers_table, "PAGE", target)
    monkeypatch.setattr(answers_table, "measured", lambda row, kind: f"| {row.name} | {kind} |")
    assert answers_table.main([]) == 1
    assert not target.exists()
    assert answers_table.main(["--write"]) == 0
    assert answers_table.main([]) == 0
    target.write_text(target.read_text().replace("ordinary", "by hand"))
    assert answers_table.main([]) == 1
    assert "--write" in capsys.readouterr().out


def test_a_changed_behaviour_changes_its_row() -> None:
    """The measurement is one: another answer under the same name is another row."""
    row = next(row for row in SIGNING_IN if row.name == "423")
    other = replace(row, arrange=lambda server, endpoint: server.penalize(endpoint, captcha=True))
    assert measured(other, "signing in") not in cells_in(WRITTEN)[0]


@pytest.mark.parametrize("stack", ALL, ids=str)
def test_a_renewal_whose_answer_gets_lost_is_sent_once(stack: Stack, tradovate_emulator: Emulator) -> None:
    """No transport sends a renewal again by itself: the server counts each, and the old token may be dead (P§4.3, P§9.4)."""
    call = _wire.renewal_call(token_of(tradovate_emulator.foreign_login()), tradovate_emulator.url)
    tradovate_emulator.inject(Fault("renewal", "drop_after", times=None))
    with pytest.raises(TransportError) as caught:
        stack.transport().send(call, 5.0)
    assert caught.value.sent
    eventually(lambda: tradovate_emulator.counts.renewals > 0)
    assert tradovate_emulator.counts.renewals == 1
