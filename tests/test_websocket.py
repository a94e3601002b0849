"""The authorize frame, and the program of the documentation that keeps a WebSocket authorised with it."""

import asyncio
import contextlib
import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import anyio.from_thread
import pytest
from core_tools import Recorder, eventually
from hypothesis import given
from hypothesis import strategies as st
from values import MD_VALUE, SECRETS, VALUE
from values import token as some_token

from tradovate_auth import (
    AccessToken,
    ConfigurationError,
    Credentials,
    LoginRefused,
    LoginRequired,
    ProviderClosed,
    StorageError,
    TokenProvider,
    TokenTimeout,
    TransportError,
)
from tradovate_auth.events import Event, Evicted
from tradovate_auth.requests import RequestsTransport
from tradovate_auth.storage import MemoryStorage
from tradovate_auth.testing import Emulator
from tradovate_auth.testing.emulator import Fault
from tradovate_auth.websocket import authorize_frame

PROGRAM = Path(__file__).parent.parent / "docs" / "examples" / "websocket.py"


class TestFrame:
    """The text that authorises a socket."""

    def test_the_frame_has_four_lines(self) -> None:
        """The word, the id, an empty query and the raw token, and nothing behind it."""
        assert authorize_frame(some_token(), 1) == f"authorize\n1\n\n{VALUE}"

    def test_market_data_has_a_token_of_its_own(self) -> None:
        """For market data it is the other one."""
        assert authorize_frame(some_token(), 0, market_data=True) == f"authorize\n0\n\n{MD_VALUE}"
        assert authorize_frame(some_token(), 0, True) == f"authorize\n0\n\n{MD_VALUE}"  # the contract

    def test_no_token_for_market_data(self) -> None:
        """Where the server gave none, the error says what to do instead; the ordinary frame is still to be had."""
        token = some_token(md_value=None)
        with pytest.raises(ConfigurationError, match="no token for market data") as caught:
            authorize_frame(token, 0, market_data=True)
        assert "Leave market_data out" in caught.value.advice
        assert authorize_frame(token, 0) == f"authorize\n0\n\n{VALUE}"

    @pytest.mark.parametrize("request_id", [-1, 2**53, 10**5000, True, False, 1.0, "1", None], ids=type)
    def test_an_id_is_a_number_that_comes_back_the_same(self, request_id: Any) -> None:
        """What is no whole number, or one that JSON may bring back changed, is refused."""
        with pytest.raises(ConfigurationError, match="whole number"):
            authorize_frame(some_token(), request_id)

    @pytest.mark.parametrize("token", [VALUE, None, object()])
    def test_a_token_is_an_access_token(self, token: Any) -> None:
        """A bare text in place of the token is refused, and not shown."""
        with pytest.raises(ConfigurationError, match="takes an AccessToken") as caught:
            authorize_frame(token, 1)
        assert VALUE not in str(caught.value)

    @pytest.mark.parametrize("market_data", [False, True])
    @pytest.mark.parametrize("piece", ["\n", "\r", " ", "\x00", "\x7f", "é", "\u2028"], ids=repr)
    def test_no_token_breaks_out_of_its_line(self, piece: str, market_data: bool) -> None:
        """A token that somebody has changed cannot add a line to the frame; the error shows no piece of it."""
        token = some_token(value=VALUE + piece + VALUE, md_value=MD_VALUE + piece)
        with pytest.raises(ConfigurationError, match="cannot be put into a frame") as caught:
            authorize_frame(token, 1, market_data)
        assert not [secret for secret in SECRETS if secret in f"{caught.value!r} {caught.value}"]

    @pytest.mark.parametrize("market_data", [False, True])
    def test_an_empty_token_is_none(self, market_data: bool) -> None:
        """An empty token is not sent."""
        with pytest.raises(ConfigurationError, match="cannot be put into a frame"):
            authorize_frame(some_token(value="", md_value=""), 1, market_data)

    @given(
        st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1), st.integers(0, 2**53 - 1)
    )
    def test_any_token_of_a_server_is_sent_as_it_is(self, value: str, request_id: int) -> None:
        """Split at its line breaks, the frame gives back exactly what went in."""
        frame = authorize_frame(some_token(value=value), request_id)
        assert frame.split("\n") == ["authorize", str(request_id), "", value]


@pytest.fixture(scope="module")
def program() -> Any:
    """Return the program as a module."""
    spec = importlib.util.spec_from_file_location("websocket_example", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class RecordingSocket(aiohttp.ClientWebSocketResponse):
    """A client's socket that remembers what was sent, and every socket that there was."""

    sent: list[str]
    opened: list["RecordingSocket"]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.opened.append(self)

    async def send_str(self, data: str, compress: int | None = None) -> None:
        """Send, and remember."""
        self.sent.append(data)
        await super().send_str(data, compress)


class Line:
    """The program's stream, at work on a loop in a thread of its own against one server."""

    def __init__(self, program: Any, server: Emulator, log: pytest.LogCaptureFixture, **options: Any) -> None:
        self.program, self.server, self.log, self.heard = program, server, log, Recorder()
        self.received: list[Any] = []
        self.stream = program.Stream(self.received.append, **options)
        self.provider = TokenProvider(
            Credentials(**server.credentials),
            environment=server.url,
            storage=MemoryStorage(),
            transport=RequestsTransport(),
            on_event=self._on_event,
        )
        self.sockets: list[RecordingSocket] = []
        self.sent: list[str] = []
        self.kind = type("Socket", (RecordingSocket,), {"sent": self.sent, "opened": self.sockets})

    def _on_event(self, event: Event) -> None:
        self.heard(event)
        self.stream.on_event(event)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Let it run."""
        with self.provider, anyio.from_thread.start_blocking_portal() as portal:
            self.portal = portal
            self.running = portal.start_task_soon(self._run)
            yield
            self.running.cancel()

    async def _run(self) -> None:
        async with aiohttp.ClientSession(ws_response_class=self.kind) as session:
            await self.stream.run(self.provider, session)

    @property
    def generations(self) -> list[int]:
        """Of the tokens with which a socket was authorised, in order."""
        said = [record for record in self.log.records if record.getMessage().startswith("authorised")]
        return [record.args[0] for record in said if isinstance(record.args, tuple)]  # type: ignore[misc]

    @property
    def endings(self) -> list[str]:
        """Why sockets ended."""
        said = [record.getMessage() for record in self.log.records]
        ends = [text.removeprefix("disconnected: ") for text in said if text.startswith("disconnected")]
        return [text.partition(";")[0] for text in ends]

    @property
    def waits(self) -> list[float]:
        """How many seconds were waited after each."""
        said = [record for record in self.log.records if record.getMessage().startswith("disconnected")]
        return [record.args[1] for record in said if isinstance(record.args, tuple)]  # type: ignore[misc]

    def authorised(self, *generations: int) -> None:
        """Block until sockets were authorised with these, in this order."""
        eventually(lambda: len(self.generations) >= len(generations), f"{generations}: {self.log.text}")
        assert self.generations == list(generations)

    def say(self, text: str) -> None:
        """Send something on the newest socket."""
        self.portal.call(self.sockets[-1].send_str, text)


@pytest.fixture
def line(
    program: Any,
    tradovate_emulator: Emulator,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Line]:
    """Yield a stream at work, which beats fast and pauses briefly."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(program, "HEARTBEAT", 0.005)
    monkeypatch.setattr(program, "PAUSE", 0.01)
    made = Line(program, tradovate_emulator, caplog)
    with made.at_work():
        yield made


def tokens_sent(line: Line) -> list[str]:
    """Return the tokens of the frames that were sent."""
    return [text.split("\n")[3] for text in line.sent if text.startswith("authorize")]


def asked(program: Any, monkeypatch: pytest.MonkeyPatch, *errors: BaseException) -> list[float]:
    """Return how long the stream waits after each of these, which it gets in place of a token; the last one ends it."""
    left, waits = list(errors), []

    class Source:
        """Has no token."""

        async def aget(self, *, min_ttl: float = 0.0) -> AccessToken:
            """Raise the next one."""
            raise left.pop(0)

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(program.asyncio, "sleep", sleep)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(program.Stream(print).run(Source(), None))
    return waits


class TestProgram:
    """The program of `docs/websocket.md`, against the emulator."""

    def test_a_socket_outlives_a_renewal_and_the_next_one_has_the_new_token(self, line: Line) -> None:
        """A renewal leaves the socket alone; when it drops, the next is authorised with the token of that moment."""
        line.authorised(1)
        first = line.provider.get()
        second = line.provider.renew()
        line.say("user/syncrequest\n7\n\n{}")
        eventually(lambda: line.received, "an answer on the old socket")
        assert line.received == [{"s": 200, "i": 7}]
        assert len(line.sockets) == 1

        line.server.stop()
        eventually(lambda: len(line.endings) >= 2, "a drop, and a try in vain")
        line.server.start()

        line.authorised(1, 2)
        assert tokens_sent(line) == [first.value, second.value]
        assert (line.server.counts.logins, line.server.counts.renewals) == (1, 1)

    def test_the_socket_is_kept_alive(self, line: Line) -> None:
        """Heartbeats are sent, again and again."""
        eventually(lambda: line.sent.count("[]") >= 3, "heartbeats")
        assert line.endings == []

    def test_an_evicted_session_gets_another_socket(self, line: Line) -> None:
        """When the session was closed by other clients, the socket that it had authorised is left for one of ours."""
        line.authorised(1)
        for _ in range(line.server.rules.max_sessions):
            line.server.foreign_login()
        token = line.provider.renew()
        line.authorised(1, 2)
        assert [event.generation for event in line.heard.of(Evicted)] == [1]
        assert tokens_sent(line)[-1] == token.value
        assert line.endings == ["the session was evicted"]

    def test_a_refused_frame_makes_the_provider_look(self, line: Line) -> None:
        """A token that the server takes no more is doubted, as after a 401, and the next socket has a good one."""
        line.authorised(1)
        line.server.revoke()
        line.portal.call(line.sockets[-1].close)
        line.authorised(1, 2)
        assert line.endings[:2] == ["closed", "the token was refused"]

    @pytest.mark.parametrize("status", [429, 503, 408])
    def test_a_server_in_trouble_is_no_refused_token(
        self, line: Line, monkeypatch: pytest.MonkeyPatch, status: int
    ) -> None:
        """Another answer to the frame than 200 and 401 says nothing about the token: the next socket is tried with it."""
        monkeypatch.setattr(line.program, "LONGEST_PAUSE", 0.125)
        line.authorised(1)
        line.server.inject(Fault("authorize", "status", status=status))
        line.portal.call(line.sockets[-1].close)
        line.authorised(1, 1)
        assert line.endings == ["closed", f"the frame was answered with {status}"]
        assert (line.waits[1] == 0.125) == (status == 429)
        assert (line.server.counts.logins, line.server.counts.renewals) == (1, 0)

    def test_frames_that_bring_nothing_lead_to_a_look(self, line: Line) -> None:
        """Three such answers in a row may be an eviction (P§5.1): the provider probes, and its session is found alive."""
        line.authorised(1)
        line.server.inject(Fault("authorize", "status", status=503, times=3))
        line.portal.call(line.sockets[-1].close)
        eventually(lambda: line.server.counts.renewals == 1, "a probe")
        eventually(lambda: len(line.generations) == 2, "another socket")
        assert line.server.counts.logins == 1

    def test_an_authorised_socket_ends_a_row_of_bad_answers(self, line: Line) -> None:
        """Bad answers with a good one between are no eviction: nothing is renewed."""
        line.authorised(1)
        for expected in ((1, 1), (1, 1, 1)):
            line.server.inject(Fault("authorize", "status", status=503, times=2))
            line.portal.call(line.sockets[-1].close)
            line.authorised(*expected)
        assert line.server.counts.renewals == 0

    @pytest.mark.parametrize(
        "text", ["anot json", 'a["x"]', "a5", "a" + "[" * 100_000, 'a[{"i": 0}]', 'a[{"i": 0, "s": "200"}]']
    )
    def test_garbage_ends_the_socket_alone(self, line: Line, text: str) -> None:
        """A message that is none, or an answer without a status, costs the connection, and neither program nor token."""
        line.authorised(1)
        line.server.inject(Fault("authorize", "body", payload=text))
        line.portal.call(line.sockets[-1].close)
        line.authorised(1, 1)
        assert line.endings[1] in ("a message that cannot be read", "an answer that cannot be read")
        assert (line.server.counts.logins, line.server.counts.renewals) == (1, 0)

    @pytest.mark.parametrize("status", [200, 429])
    def test_a_penalty_is_sat_out(self, line: Line, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
        """An answer with a ticket authorises nothing, even with status 200: the frame is sent again on the same socket."""
        monkeypatch.setattr(line.program, "SHORTEST_PENALTY", 0.01)
        line.authorised(1)
        ticket = {"p-ticket": "x", "p-time": 0.02}
        line.server.inject(Fault("authorize", "json", status=status, payload=ticket, times=2))
        line.portal.call(line.sockets[-1].close)
        line.authorised(1, 1)
        assert len(line.sockets) == 2
        assert len(tokens_sent(line)) == 1 + 3
        assert line.endings == ["closed"]
        assert line.server.counts.renewals == 0

    def test_a_penalty_after_the_other_ends_it(self, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
        """After the third ticket on a socket the program stays away for long."""
        monkeypatch.setattr(line.program, "SHORTEST_PENALTY", 0.01)
        monkeypatch.setattr(line.program, "BARRED", 0.0625)
        line.authorised(1)
        line.server.inject(Fault("authorize", "json", payload={"p-ticket": "x", "p-time": 0.02}, times=3))
        line.portal.call(line.sockets[-1].close)
        line.authorised(1, 1)
        assert line.endings[1:] == ["one penalty after the other"]
        assert line.waits[1:] == [0.0625]

    @pytest.mark.parametrize("captcha", [True, "true", 1])
    def test_a_captcha_is_for_humans(self, line: Line, monkeypatch: pytest.MonkeyPatch, captcha: Any) -> None:
        """Where the server asks for a captcha, the frame is not sent again for long."""
        monkeypatch.setattr(line.program, "BARRED", 0.0625)
        line.authorised(1)
        payload = {"p-ticket": "x", "p-time": 1, "p-captcha": captcha}
        line.server.inject(Fault("authorize", "json", payload=payload))
        line.portal.call(line.sockets[-1].close)
        line.authorised(1, 1)
        assert line.endings[1:] == ["the server asks for a captcha"]
        assert line.waits[1:] == [0.0625]

    @pytest.mark.parametrize(
        ("detail", "seconds"),
        [
            ({"p-ticket": "x", "p-time": 20}, 20.0),
            ({"p-ticket": "x"}, 15.0),
            ({"p-time": 0}, 1.0),
            ({"p-time": 10**400}, 3600.0),
            ({"p-time": float("nan")}, 15.0),
            ({"p-time": -1}, 15.0),
            ({"p-time": "soon", "p-captcha": "false"}, 15.0),
            ({"p-ticket": "x", "p-time": 2, "p-captcha": False}, 2.0),
            ({}, 0.0),
            ("p-ticket", 0.0),
            (None, 0.0),
        ],
    )
    def test_seconds_of_a_penalty(self, program: Any, detail: Any, seconds: float) -> None:
        """A penalty lasts as long as it says, between a second and an hour; fifteen seconds where it does not (P§4.3)."""
        assert program.penalty({"i": 0, "s": 200, "d": detail}) == seconds

    def test_nothing_secret_is_logged(self, line: Line) -> None:
        """No log line of the program holds a token."""
        line.authorised(1)
        token = line.provider.get()
        assert token.value not in line.log.text
        assert str(token.md_value) not in line.log.text

    def test_market_data(
        self, program: Any, tradovate_emulator: Emulator, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A stream for market data authorises with the token for it, on the host under its key."""
        caplog.set_level(logging.INFO)
        tradovate_emulator.configure(api_hosts={"mdDemo": "127.0.0.1"})
        line = Line(program, tradovate_emulator, caplog, key="mdDemo", market_data=True)
        with line.at_work():
            line.authorised(1)
            assert tokens_sent(line) == [line.provider.get().md_value]

    def test_a_moved_account(
        self, program: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A 421 leads to a renewal, which says where the account lives now; the next socket goes there (P§1.2)."""
        caplog.set_level(logging.INFO)
        monkeypatch.setattr(program, "PAUSE", 0.01)
        with Emulator(aliases=("127.0.0.2",)) as server:
            line = Line(program, server, caplog)
            line.provider.get()
            server.configure(api_hosts={"demo": "127.0.0.2"}, wrong_host="421")
            with line.at_work():
                line.authorised(2)
                assert str(line.sockets[0]._response.url.host) == "127.0.0.2"
        assert line.endings == ["status 421"]

    def test_a_socket_that_says_nothing_is_given_up(
        self, program: Any, line: Line, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server that takes the connection and does not answer does not hold the stream for ever."""
        line.authorised(1)
        monkeypatch.setattr(program, "HANDSHAKE", 0.05)
        line.server.inject(Fault("/websocket", "hang"))
        line.portal.call(line.sockets[-1].close)
        eventually(lambda: "TimeoutError" in line.endings, "a time-out")
        monkeypatch.setattr(program, "HANDSHAKE", 10.0)
        eventually(lambda: len(line.generations) == 2, "another socket")

    def test_only_the_handshake_is_limited(
        self,
        program: Any,
        tradovate_emulator: Emulator,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Once a socket is authorised, no limit ends it."""
        caplog.set_level(logging.INFO)
        limits: list[asyncio.Timeout] = []
        plain = asyncio.timeout

        def timeout(delay: float | None) -> asyncio.Timeout:
            made = plain(delay)
            limits.extend([made] if delay == program.HANDSHAKE else [])
            return made

        monkeypatch.setattr(asyncio, "timeout", timeout)
        monkeypatch.setattr(program, "HANDSHAKE", 9.75)
        line = Line(program, tradovate_emulator, caplog)
        with line.at_work():
            line.authorised(1)
            assert [limit.when() for limit in limits] == [None]

            # A penalty of nearly an hour is within the limit of the next one.
            line.server.inject(Fault("authorize", "json", payload={"p-ticket": "x", "p-time": 3000}))
            begun = line.portal.call(lambda: asyncio.get_running_loop().time())
            line.portal.call(line.sockets[-1].close)
            eventually(lambda: len(limits) > 1 and (limits[1].when() or 0.0) > begun + 3000, "a longer limit")

    def test_what_a_human_must_mend_ends_the_program(
        self, program: Any, tradovate_emulator: Emulator, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Refused credentials come out of the stream; it does not try them for ever."""
        tradovate_emulator.configure(refusal_style="401")
        tradovate_emulator.add_user(**{**tradovate_emulator.credentials, "password": "other"})
        line = Line(program, tradovate_emulator, caplog)
        line.provider.close()
        who = Credentials(**{**tradovate_emulator.credentials, "password": "wrong"})
        line.provider = TokenProvider(who, environment=tradovate_emulator.url, storage=MemoryStorage())
        with line.at_work(), pytest.raises(LoginRefused):
            line.running.result(20)
        assert tradovate_emulator.counts.logins == 1

    def test_what_passes_is_waited_for(
        self, program: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Errors that pass by themselves are waited out, for as long as they say."""
        waits = asked(
            program,
            monkeypatch,
            TransportError("gone", 7.0),
            LoginRefused("throttled, it may be", 8.0),
            TransportError("gone"),
            StorageError("away"),
            TokenTimeout("not yet"),
            asyncio.CancelledError(),
        )
        assert waits[:2] == [7.0, 8.0]
        assert len(waits) == 5
        assert all(0 <= wait <= 16 * program.PAUSE for wait in waits[2:])

    @pytest.mark.parametrize("kind", [ConfigurationError, LoginRefused, LoginRequired, ProviderClosed])
    def test_what_no_waiting_mends_comes_out(
        self, program: Any, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
    ) -> None:
        """What only a human can mend ends the stream at once."""
        with pytest.raises(kind, match="mend it"):
            asked(program, monkeypatch, kind("mend it"))

    def test_it_runs_as_it_stands(self, tradovate_emulator: Emulator, tmp_path: Path) -> None:
        """Started by itself, with the environment's variables, it is authorised, prints, and survives a restart."""
        known = {f"TRADOVATE_{name.upper()}": str(v) for name, v in tradovate_emulator.credentials.items()}
        environment = {**os.environ, **known, "TRADOVATE_ENVIRONMENT": tradovate_emulator.url}
        said = tmp_path / "said"
        with said.open("w") as output:
            started = subprocess.Popen(
                [sys.executable, "-W", "error", str(PROGRAM)], env=environment, stdout=output, stderr=output
            )
            try:
                eventually(lambda: said.read_text().count("authorised") == 1, "the first socket")
                tradovate_emulator.stop()
                tradovate_emulator.start()
                eventually(lambda: said.read_text().count("authorised") == 2, "the second socket")
            finally:
                started.terminate()
                started.wait(20)
        assert tradovate_emulator.counts.logins == 1
        assert "Traceback" not in said.read_text()
