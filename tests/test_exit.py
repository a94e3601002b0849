"""The end of a process: by itself, by Ctrl-C, and by an exception, with a login in the air."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from core_tools import eventually, run_script

from tradovate_auth.testing import Emulator

PROLOGUE = """
import sys, threading, time
from core_tools import SocketTransport, eventually
from tradovate_auth import Credentials, TokenProvider, TokenTimeout
from tradovate_auth.storage import MemoryStorage
url, *fields = sys.argv[1:]
class Told(MemoryStorage):
    def save(self, key, record):
        if record.tokens:
            print("saved", record.generation, flush=True)
        return super().save(key, record)
def provider(**options):
    return TokenProvider(Credentials(*fields), environment=url, storage=Told(), transport=SocketTransport(), **options)
"""


def arguments(emulator: Emulator) -> list[str]:
    """Return the emulator's address and user, for a script."""
    who = emulator.credentials
    return [
        emulator.url,
        *(
            str(who[name])
            for name in ("name", "password", "app_id", "app_version", "cid", "sec", "device_id")
        ),
    ]


@pytest.mark.parametrize("renewal", ["background", "on-demand"])
def test_an_interpreter_that_leaves_finishes_its_login(tradovate_emulator: Emulator, renewal: str) -> None:
    """The login that is on its way lands and is saved before the process is gone; nothing is complained of."""
    tradovate_emulator.configure(login_delay=0.4)
    script = """
p = provider(renewal=%r)
try:
    p.get(timeout=0.05)
except TokenTimeout:
    print("left", flush=True)
"""
    ended = run_script(PROLOGUE + script % renewal, *arguments(tradovate_emulator))
    assert (ended.stdout.split("\n")[:2], ended.stderr, ended.returncode) == (["left", "saved 1"], "", 0)
    assert tradovate_emulator.counts.logins == tradovate_emulator.live_sessions == 1


def test_the_last_event_is_told_before_the_interpreter_leaves(tradovate_emulator: Emulator) -> None:
    """A program that ends right after its call hears of the login all the same, though its listener takes its time."""
    script = """
def slow(event):
    time.sleep(0.2)
    print(type(event).__name__, flush=True)
provider(on_event=slow).get()
"""
    ended = run_script(PROLOGUE + script, *arguments(tradovate_emulator))
    assert (ended.stdout.split(), ended.stderr, ended.returncode) == (["saved", "1", "LoggedIn"], "", 0)


def test_a_listener_that_hangs_does_not_keep_the_interpreter(tradovate_emulator: Emulator) -> None:
    """It is waited for, but not for ever."""
    script = """
provider(on_event=lambda _: threading.Event().wait()).get()
"""
    ended = run_script(PROLOGUE + script, *arguments(tradovate_emulator))
    assert (ended.stdout.split(), ended.stderr, ended.returncode) == (["saved", "1"], "", 0)


def test_a_process_with_a_timer_ends_by_itself(tradovate_emulator: Emulator) -> None:
    """A provider that nobody has closed keeps no process from ending."""
    ended = run_script(PROLOGUE + "p = provider(); p.get()", *arguments(tradovate_emulator))
    assert (ended.stdout, ended.stderr, ended.returncode) == ("saved 1\n", "", 0)


def test_asking_at_the_very_end_is_served(tradovate_emulator: Emulator) -> None:
    """A function that runs at exit gets its token too, whether or not threads can still be started."""
    script = """
import atexit
p = provider()
atexit.register(lambda: print("generation", p.get().generation, flush=True))
"""
    ended = run_script(PROLOGUE + script, *arguments(tradovate_emulator))
    assert (ended.stdout, ended.stderr, ended.returncode) == ("saved 1\ngeneration 1\n", "", 0)


def test_an_asyncio_program_that_is_cancelled_finishes_its_login(tradovate_emulator: Emulator) -> None:
    """`asyncio.run` is over, its loop closed; the login is saved all the same."""
    tradovate_emulator.configure(login_delay=0.4)
    script = """
import asyncio
p = provider()
async def main():
    try:
        await asyncio.wait_for(p.aget(), 0.05)
    except TimeoutError:
        print("left", flush=True)
asyncio.run(main())
"""
    ended = run_script(PROLOGUE + script, *arguments(tradovate_emulator))
    assert (ended.stdout, ended.stderr, ended.returncode) == ("left\nsaved 1\n", "", 0)
    assert tradovate_emulator.counts.logins == 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals are not sent there")
@pytest.mark.parametrize("timeout", ["30.0", "None"])
def test_ctrl_c_leaves_at_once_and_the_login_lands(tradovate_emulator: Emulator, timeout: str) -> None:
    """SIGINT during `get` raises `KeyboardInterrupt` before the login is over; the next `get` is served by it."""
    tradovate_emulator.configure(login_delay=0.5)
    script = f"""
p = provider()
print("asking", flush=True)
try:
    p.get({timeout})
except KeyboardInterrupt:
    print("interrupted", p._keeper.held.token, flush=True)
print("generation", p.get().generation, flush=True)
"""
    child = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROLOGUE + script, *arguments(tradovate_emulator)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    eventually(lambda: tradovate_emulator.counts.logins == 1)
    child.send_signal(signal.SIGINT)
    out, complaints = child.communicate(timeout=30)
    assert out.split("\n")[:2] == ["asking", "interrupted None"]
    assert sorted(out.split("\n")[2:4]) == ["generation 1", "saved 1"]
    assert (complaints, child.returncode) == ("", 0)
    assert tradovate_emulator.counts.logins == 1
