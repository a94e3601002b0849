"""The emulator as a process: the line it prints, its controls over HTTP, its end; and the command line."""

import builtins
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from test_emulator import Client, Ticker

from tradovate_auth.testing import emulator as package
from tradovate_auth.testing.emulator import Counts, Emulator, EmulatorProcess, Fault, Rules
from tradovate_auth.testing.emulator import __main__ as main

ROOT = Path(main.__file__).resolve().parents[3]
COMMAND = [sys.executable, "-m", "tradovate_auth.testing.emulator"]


@pytest.fixture(scope="module")
def process() -> Iterator[EmulatorProcess]:
    """One running process; tests reset it."""
    with EmulatorProcess(Rules(api_hosts={"demo": "localhost"}), lifetime=60.0) as process:
        yield process


@pytest.fixture
def child(process: EmulatorProcess) -> EmulatorProcess:
    """The running process without a past."""
    process.reset()
    return process


def test_process_serves_and_reports(child: EmulatorProcess) -> None:
    """Logins, sessions, requests and orders of the child are read back as the same objects as in a thread."""
    client = Client(child)
    token = client.token()
    client.post("/v1/order/placeorder", {"qty": 1}, token)
    assert child.counts == Counts(logins=1, logins_granted=1, calls=1, calls_ok=1, orders=1)
    assert child.live_sessions == 1
    assert child.sessions[0].expires_at - child.sessions[0].opened_at == 60
    assert (child.orders[0].body, child.orders[0].content_type) == (b'{"qty": 1}', "application/json")
    login, order = child.requests
    assert json.loads(login.body)["name"] == client.user["name"]
    assert (order.authorization, order.status) == (f"Bearer {token}", 200)
    assert token not in repr(child.requests)
    assert child.url in repr(child)
    assert child.pid != os.getpid()


def test_controls_reach_the_child(child: EmulatorProcess) -> None:
    """Every control does in the child what it does in a thread."""
    client = Client(child)
    child.start()
    assert child.add_user("other", "their own", cid=5)["cid"] == 5
    token = child.foreign_login()
    assert client.call(token).status == 200
    child.forbid("/account/list")
    assert client.call(token).status == 401
    child.allow("/account/list")
    child.inject(Fault("calls", "body", payload=b"\xff"))
    assert (client.call(token).body, client.call(token).status) == (b"\xff", 200)
    assert (child.revoke("other"), child.revoke(), client.call(token).status) == (0, 1, 401)
    child.penalize("login", seconds=1, captcha=True)
    assert client.login().json["p-captcha"] is True
    child.lock_out(423, seconds=30)
    assert client.login().status == 423
    child.lock_out(seconds=0)
    child.configure(lifetime=30.0, api_hosts=None)
    assert "apiHosts" not in client.login().json
    child.release()


def test_bad_arguments_are_explained(child: EmulatorProcess) -> None:
    """A control with arguments it does not know answers 400 and says why; an unknown control 404."""
    client = Client(child)
    reply = client.post("/emulator/revoke", {"who": 1})
    assert (reply.status, "who" in reply.json["error"]) == (400, True)
    assert client.post("/emulator/configure", {"lifetimes": 1}).status == 400
    assert client.ask("/emulator/nothing").status == 404
    assert client.ask("/emulator/state", method="PUT").status == 404
    with pytest.raises(ValueError, match="lifetimes"):
        child.configure(lifetimes=1)
    with pytest.raises(HTTPError) as caught:
        child.foreign_login("nobody")
    caught.value.close()


def test_process_can_start_again_on_its_port() -> None:
    """After a stop the port refuses; the next start has the port again, and no memory."""
    process = EmulatorProcess(lifetime=60.0)
    process.stop()
    process.start()
    port, client = process.port, Client(process)
    client.login()
    process.stop()
    assert "stopped" in repr(process)
    with pytest.raises(ConnectionRefusedError):
        client.call()
    with process:
        assert (process.port, process.counts.logins) == (port, 0)


def test_process_that_cannot_start_says_why() -> None:
    """A port in use ends the child, whose complaint is in the error."""
    with Emulator() as server, pytest.raises(RuntimeError, match="address"):
        EmulatorProcess(port=server.port).start()


@pytest.mark.skipif(sys.platform == "win32", reason="no signals to catch there")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command_prints_one_line_and_ends_on_a_signal(number: signal.Signals) -> None:
    """The command prints its address once it listens, nothing else, and ends with 0 on SIGTERM and SIGINT."""
    command = [*COMMAND, "--lifetime", "6", "--refusal-style", "401", "--send-date", "false"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as child:
        assert child.stdout is not None
        told = json.loads(child.stdout.readline())
        assert told == {"url": told["url"], "pid": child.pid, "credentials": told["credentials"]}
        assert told["credentials"]["name"] == "trader"
        host, port = told["url"].removeprefix("http://").removesuffix("/v1").split(":")
        server = Emulator(host=host, port=int(port))
        reply = Client(server).login(password="wrong")
        assert (reply.status, "Date" in reply.headers) == (401, False)
        child.send_signal(number)
        assert child.communicate(timeout=20) == (b"", b"")
        assert child.returncode == 0


def test_command_ends_with_its_parent() -> None:
    """Asked to, it ends when the other end of its stdin closes."""
    with subprocess.Popen(
        [*COMMAND, "--until-stdin-closes"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline()
        child.stdin.close()
        assert child.wait(timeout=20) == 0


def test_main_in_this_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The entry point itself: rules from JSON, single ones before them, text that is no JSON, and the signal."""
    handlers: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    seen: list[Rules] = []

    class Seen(Emulator):
        def start(self) -> None:
            seen.append(self.rules)
            super().start()
            threading.Timer(0.01, handlers[signal.SIGTERM], (signal.SIGTERM, None)).start()

    monkeypatch.setattr(package, "Emulator", Seen)
    main.main(["--rules", '{"lifetime": 5, "hour": 9}', "--lifetime", "6", "--renewal-token", "same"])
    assert json.loads(capsys.readouterr().out)["pid"] == os.getpid()
    assert (seen[0].lifetime, seen[0].hour, seen[0].renewal_token) == (6, 9, "same")


def test_stdin_is_watched_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes in is ignored; the end of it sets the event."""
    source = io.BytesIO(b"ignored")
    monkeypatch.setattr(os, "read", lambda _descriptor, size: source.read(size))
    stop = threading.Event()
    main._watch_stdin(stop)
    assert stop.is_set()


def test_release_over_http_ends_a_hang() -> None:
    """The release of a hang can come over HTTP too."""
    with Emulator(clock=Ticker()) as server:
        client = Client(server)
        server.inject(Fault("login", "hang"))
        replies: list[Any] = []
        thread = threading.Thread(target=lambda: replies.append(client.login()))
        thread.start()
        while not replies:
            client.post("/emulator/release", {})
        thread.join()
        assert replies[0].status == 200
        assert client.post("/emulator/lock-out", {}).json == {"result": None}
        assert client.login().status == 429


def test_without_aiohttp_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules and faults need nothing; the emulator without aiohttp raises an ImportError that names the extra."""
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "aiohttp":
            raise ImportError(name)
        return real(name, *arguments, **options)

    where = Path(main.__file__).with_name("_aiohttp.py")
    spec = importlib.util.spec_from_file_location("without_aiohttp", where)
    assert spec is not None
    assert spec.loader is not None
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'tradovate-auth\[emulator\]'"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_package_imports_aiohttp_only_for_the_emulator() -> None:
    """Importing the package loads neither aiohttp nor the emulator's server; asking for Emulator does."""
    code = (
        "import sys; from tradovate_auth.testing import emulator as e; assert 'aiohttp' not in sys.modules;"
        "e.Emulator; assert 'aiohttp' in sys.modules; e.Emulator"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    with pytest.raises(AttributeError, match="Simulator"):
        package.Simulator  # noqa: B018


@pytest.mark.parametrize(
    "arguments",
    [["--port", "99999"], ["--port", "{taken}"], ["--rules", '{"nonsense": 1}']],
)
def test_command_says_what_is_wrong_in_a_line(arguments: list[str]) -> None:
    """A port that cannot be had, or a rule that there is not: one line on stderr, status 1, no traceback."""
    with Emulator() as other:
        given = [
            argument.format(taken=other.port) if "{t" in argument else argument for argument in arguments
        ]
        ended = subprocess.run(
            [sys.executable, "-m", "tradovate_auth.testing.emulator", *given],
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith("The emulator cannot start: ")
    assert ended.stderr.count("\n") == 1
