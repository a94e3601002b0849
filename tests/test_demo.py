"""The demonstration: that it shows what it says, and that it would say so if it did not."""

import io
import os
import signal
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from tradovate_auth.testing.demo import __main__ as demo
from tradovate_auth.testing.demo import _play
from tradovate_auth.testing.demo._board import Board, Session
from tradovate_auth.testing.demo._script import Script, Stack, Worker, order_name
from tradovate_auth.testing.demo._traffic import _cured
from tradovate_auth.testing.demo._verdict import Outcome, verdict

COMMAND = [sys.executable, "-m", "tradovate_auth.testing.demo"]

GOOD = Outcome(
    seconds=20.0,
    stacks=6,
    calls=5000,
    failures=0,
    first_failure=None,
    resends=17,
    logins=2,
    revoked=1,
    renewals=3,
    sent=("a", "b"),
    placed=("b", "a"),
)


def test_a_short_run_ends_well() -> None:
    """Six stacks, several lifetimes, a session that is revoked, orders that meet a dead token: nothing fails."""
    command = [*COMMAND, "--seconds", "5", "--lifetime", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All well: in 5 seconds 6 HTTP stacks" in done.stdout
    assert done.stderr == ""
    assert " 0 calls met a dead token" not in done.stdout
    for stack in ("requests, threads", "httpx, thread", "httpx, tasks", "httpx2, tasks", "aiohttp, tasks"):
        assert stack in done.stdout
    assert "\x1b" not in done.stdout


def test_ctrl_c_ends_it_at_once() -> None:
    """An interrupt stops the workers, closes the provider and the server, and judges nothing."""
    # A process group of its own: the server gets the interrupt as well then, as on a terminal.
    with subprocess.Popen(
        COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        assert running.stdout is not None
        while "calls" not in (line := running.stdout.readline()).partition(":")[2]:
            assert line, running.communicate()
        os.killpg(running.pid, signal.SIGINT)
        rest, complaints = running.communicate()
    assert (running.returncode, complaints) == (130, "")
    assert rest.splitlines()[-1] == "Stopped before the end; nothing is judged."


def test_the_verdict_is_a_sentence() -> None:
    """What went well is told in one breath."""
    good, sentence = verdict(GOOD)
    assert good
    assert "none failed" in sentence
    assert "one more after the server had ended the session" in sentence
    assert "all 2 orders are on the server exactly once" in sentence
    assert verdict(replace(GOOD, revoked=0, logins=1))[0]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"calls": 0}, "no call was made"),
        ({"failures": 3, "first_failure": "status 401"}, "3 calls failed, the first with status 401"),
        ({"logins": 3}, "3 logins instead of 2"),
        ({"logins": 1}, "1 logins instead of 2"),
        ({"revoked": 0}, "2 logins instead of 1"),
        ({"placed": ("a",)}, "1 orders are not on the server"),
        ({"placed": ("a", "b", "b")}, "1 orders are on the server more than once"),
        ({"placed": ("a", "b", "c")}, "1 orders on the server are nobody's"),
    ],
)
def test_the_verdict_names_each_fault(changes: dict[str, Any], complaint: str) -> None:
    """A failed call, a login too many or too few, an order missing, doubled or unknown: each alone is enough."""
    good, sentence = verdict(replace(GOOD, **changes))
    assert not good
    assert complaint in sentence


@pytest.mark.parametrize(("outcome", "code"), [(GOOD, 0), (replace(GOOD, failures=1), 1)])
def test_the_exit_code_is_the_verdict(
    outcome: Outcome, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scripts read the verdict as the exit code."""
    monkeypatch.setattr(_play, "play", lambda *_, **__: outcome)
    assert demo.main([]) == code
    assert verdict(outcome)[1] in capsys.readouterr().out


def test_a_missing_library_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without one of the libraries the command says what to install, and nothing is started."""
    for name in ("tradovate_auth.testing.demo._board", "rich.console"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert demo.main([]) == 2
    assert "pip install 'tradovate-auth[all]'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--seconds", "0"], ["--lifetime", "0.5"], ["--seconds", "nan"]])
def test_useless_times_are_refused(arguments: list[str]) -> None:
    """A run without time, or with tokens that lapse before they arrive, shows nothing."""
    with pytest.raises(SystemExit) as ended:
        demo.main(arguments)
    assert ended.value.code == 2


def test_a_terminal_gets_the_table() -> None:
    """On a terminal the table is drawn again and again, and stands there at the end."""
    screen = io.StringIO()
    board = Board(Console(file=screen, force_terminal=True, width=100))
    stack = Stack("requests, threads", calls=1234, failures=2, resends=5, slowest=0.25)
    with board:
        board.show(1.0, [stack], Session(renewals=7))
        board.finish([stack], Session(renewals=8, last_event="Renewed generation 2"))
    shown = screen.getvalue()
    for text in ("requests, threads", "1,234", "250 ms", "renewals 7", "renewals 8", "Renewed generation 2"):
        assert text in shown


def test_lines_come_now_and_then() -> None:
    """Where nothing can be drawn again, there is a line every two seconds, not one for every look."""
    paper = io.StringIO()
    board = Board(Console(file=paper, force_terminal=False))
    with board:
        for _ in range(3):
            board.show(1.0, [Stack("a", calls=1), Stack("b", calls=2)], Session())
    assert paper.getvalue().count("\n") == 1
    assert "3 calls, 0 failed" in paper.getvalue()


def test_a_failed_call_is_counted_and_goes_no_further() -> None:
    """Whatever a library raises, and any status but 200, is a failure; the first one is kept for the verdict."""
    stack = Stack("a stack")
    worker = Worker(stack, Script())
    with worker.call() as call:
        call.resends = _cured(200, [401])
    for status in (401, 503):
        with worker.call() as call:
            call.resends = _cured(status, [401])
    assert (stack.calls, stack.failures, stack.resends) == (3, 2, 1)
    assert stack.first_failure == "_RefusedError: status 401"


def test_orders_after_the_gathering_meet_the_dead_token() -> None:
    """While the session is revoked nobody calls; then everybody's first call is an order, under a name of its own."""
    script, stack = Script(), Stack("a stack")
    workers = [Worker(stack, script) for _ in range(2)]
    for worker in workers:
        worker.parked = True  # as they are as soon as they ask
    script.gather()
    assert not any(worker.may_call() for worker in workers)
    script.send_orders()
    bodies = []
    for worker in workers:
        assert worker.may_call()
        with worker.call() as call:
            bodies.append(call.body)
        with worker.call() as call:
            assert call.body is None
    names = [order_name(body) for body in bodies if body is not None]
    assert names == script.sent
    assert len(set(names)) == 2
