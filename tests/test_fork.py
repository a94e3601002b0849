"""Forks: in mid-login, beside a timer, and twice. Each test runs a script, so that only the package has threads."""

import os

import pytest
from core_tools import run_script

from tradovate_auth.testing import Emulator

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

PROLOGUE = """
import faulthandler, os, signal, sys, threading, time, traceback
from core_tools import SocketTransport, Recorder, eventually, timer_threads
from tradovate_auth import Credentials, TokenProvider
from tradovate_auth.storage import MemoryStorage
url, *fields = sys.argv[1:]
faulthandler.register(signal.SIGALRM, chain=True)
events = Recorder()
def provider(**options):
    options.setdefault("transport", SocketTransport())
    return TokenProvider(Credentials(*fields), environment=url, storage=MemoryStorage(), on_event=events, **options)
def in_child(work):
    child = os.fork()
    if not child:
        signal.alarm(20)  # a child that hangs shows where, and dies
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush(), sys.stdout.flush()
            os._exit(code)
    return child
def ended_well(child):
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def forked(emulator: Emulator, script: str) -> str:
    """Run the script, which must end well and complain of nothing; return what it printed."""
    who = emulator.credentials
    fields = [
        str(who[name]) for name in ("name", "password", "app_id", "app_version", "cid", "sec", "device_id")
    ]
    ended = run_script(PROLOGUE + script, emulator.url, *fields)
    assert (ended.stderr, ended.returncode) == ("", 0)
    return ended.stdout


def test_a_fork_in_mid_login(tradovate_emulator: Emulator) -> None:
    """The parent's login goes on and is used; the child, whose memory storage is its own, gets a token of its own."""
    tradovate_emulator.configure(login_delay=1.4)
    forked(
        tradovate_emulator,
        """
p = provider(renewal="on-demand")
waiter = threading.Thread(target=p.get)
waiter.start()
eventually(lambda: p._account.transport.calls)
def work():
    assert p.get(timeout=15).generation == 1
child = in_child(work)
assert p._keeper.flight.current() is not None
token = p.get(timeout=15)
waiter.join(15)
ended_well(child)
assert p.get() is token
p.close()
""",
    )
    assert tradovate_emulator.counts.logins == tradovate_emulator.live_sessions == 2


def test_a_fork_lets_a_quick_login_land(tradovate_emulator: Emulator) -> None:
    """The child shares the session of a login that was nearly there, however early in it the fork came.

    The timer that starts with its landing is stopped again before the fork, and runs with the next use. The default
    transport's thread is importing an HTTP library at that moment: a child that inherits the locks of
    half-imported modules, or those of OpenSSL, hangs.
    """
    tradovate_emulator.configure(login_delay=0.1)
    forked(
        tradovate_emulator,
        """
p = provider(transport=None)
waiter = threading.Thread(target=p.get)
waiter.start()
eventually(lambda: p._keeper.flight.current())
def work():
    assert timer_threads() == 0
    assert p.get(timeout=15).generation == 1
    eventually(lambda: timer_threads() == 1)
    q = provider(renewal="on-demand", transport=None)
    assert q.get(timeout=15).generation == 1
child = in_child(work)
assert timer_threads() == 0
waiter.join(15)
ended_well(child)
""",
    )
    assert tradovate_emulator.counts.logins == tradovate_emulator.live_sessions == 2


def test_a_timer_survives_a_fork_on_both_sides(tradovate_emulator: Emulator) -> None:
    """Before the fork the timer is stopped; with the next use it runs again in parent and child, and renews in both."""
    tradovate_emulator.configure(lifetime=1.6, hour=9.6, renewal_token="same")
    forked(
        tradovate_emulator,
        """
p = provider()
first = p.get()
eventually(lambda: timer_threads() == 1)
eventually(lambda: p._keeper.flight.current() is None)
def work():
    assert timer_threads() == 0
    assert p.get() is first
    eventually(lambda: timer_threads() == 1)
    eventually(lambda: "Renewed" in events.names)
    p.close()
    assert timer_threads() == 0
child = in_child(work)
assert timer_threads() == 0
assert p.get() is first
eventually(lambda: timer_threads() == 1)
ended_well(child)
eventually(lambda: "Renewed" in events.names)
assert "LoggedIn" in events.names and p.get().generation > 1
p.close()
""",
    )
    assert tradovate_emulator.counts.logins == 1
    assert tradovate_emulator.counts.renewals_granted >= 2


def test_a_grandchild_flies_too(tradovate_emulator: Emulator) -> None:
    """A fork of a fork of a provider without a token: each process has its own flight."""
    forked(
        tradovate_emulator,
        """
p = provider(renewal="on-demand")
def grandchild():
    assert p.get(timeout=15).generation == 1
def child():
    ended_well(in_child(grandchild))
    assert p.get(timeout=15).generation == 1
ended_well(in_child(child))
assert p.get(timeout=15).generation == 1
""",
    )
    assert tradovate_emulator.counts.logins == 3


def test_a_child_that_closes_what_it_inherited(tradovate_emulator: Emulator) -> None:
    """`close` in the child neither waits for the parent's flight nor ends the parent's provider."""
    tradovate_emulator.configure(login_delay=1.4)
    forked(
        tradovate_emulator,
        """
p = provider()
waiter = threading.Thread(target=p.get)
waiter.start()
eventually(lambda: p._account.transport.calls)
child = in_child(p.close)
ended_well(child)
assert p._keeper.flight.current() is not None
assert p.get(timeout=15).generation == 1
waiter.join(15)
p.close()
""",
    )
    assert tradovate_emulator.counts.logins == 1


def test_forking_beside_a_timer_does_not_warn(tradovate_emulator: Emulator) -> None:
    """An idle provider has no thread left when the process is forked: since Python 3.12 that would warn."""
    forked(
        tradovate_emulator,
        """
p = provider()
p.get()
eventually(lambda: timer_threads() == 1)
eventually(lambda: p._keeper.flight.current() is None)
time.sleep(0.1)
import warnings
warnings.simplefilter("error")
left = []
os.register_at_fork(after_in_parent=lambda: left.append(timer_threads()))
ended_well(in_child(p.get))
assert left == [0]
p.close()
""",
    )


def test_once_means_once_per_process(tradovate_emulator: Emulator) -> None:
    """`login="once"`: the child of a process that has logged in may log in once itself."""
    forked(
        tradovate_emulator,
        """
p = provider(renewal="on-demand", login="once")
p.get()
def work():
    q = provider(renewal="on-demand", login="once")
    assert q.get(timeout=15).generation == 1
ended_well(in_child(work))
""",
    )
    assert tradovate_emulator.counts.logins == 2
