"""The transports of the auth calls: what they send, what they believe, and what an error of theirs says."""

import contextlib
import datetime as dt
import gc
import importlib.util
import ipaddress
import json
import re
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import aiohttp
import httpx
import httpx2
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from stacks import AIOHTTP, HTTPX, HTTPX2, REQUESTS, Stack, plain_environment

from tradovate_auth import ConfigurationError, Credentials, LoginRefused, TokenProvider, TransportError
from tradovate_auth._sending import look_up, root_cause, within
from tradovate_auth._wire import Granted, login_call, read_reply, renewal_call
from tradovate_auth.storage import MemoryStorage
from tradovate_auth.testing import Emulator
from tradovate_auth.testing.emulator import Fault
from tradovate_auth.transport import ANSWER_LIMIT, Call, Reply, first_installed

__all__ = ["plain_environment"]  # a fixture

STACKS = (REQUESTS, HTTPX, HTTPX2, AIOHTTP)
every_transport = pytest.mark.parametrize("stack", STACKS, ids=str)
SECRET = "s3cret-in-the-body"
TOKEN = "t0ken-in-the-header"


class RawServer:
    """A server that does with a connection whatever its function does; it keeps what arrived on each."""

    def __init__(
        self, answer: Callable[[socket.socket], None], context: ssl.SSLContext | None = None
    ) -> None:
        self.arrived: list[bytes] = []
        self._answer = answer
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            connection = opened.enter_context(plain)
            connection.settimeout(20)
            if self._context is not None:
                connection = opened.enter_context(self._context.wrap_socket(connection, server_side=True))
            received, missing = b"", 1
            while (
                missing > 0
            ):  # closing with something unread would reset the connection, and the answer with it
                piece = connection.recv(65536)
                if not piece:
                    return
                received += piece
                head, end, body = received.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: *([0-9]+)", head)
                missing = (int(length[1]) - len(body) if length else 0) if end else 1
            self.arrived.append(received)
            self._answer(connection)

    @property
    def url(self) -> str:
        """Where it listens, without TLS."""
        return f"http://127.0.0.1:{self.port}/v1/auth/accesstokenrequest"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._accepting.join()
        for thread in self._threads:
            thread.join()


def answering(head: bytes, body: bytes = b"") -> Callable[[socket.socket], None]:
    """Answer with these bytes."""
    return lambda connection: connection.sendall(head + b"\r\n\r\n" + body)


def call_to(url: str) -> Call:
    """A call with a secret in its body and another in a header."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    return Call("POST", url, headers, json.dumps({"password": SECRET}).encode())


def fails(stack: Stack, url: str, *, timeout: float = 5.0, **options: Any) -> TransportError:
    """The error of a call that must fail."""
    with pytest.raises(TransportError) as caught:
        stack.transport(**options).send(call_to(url), timeout)
    assert_discreet(caught.value)
    gc.collect()  # a socket that nobody has closed is a ResourceWarning, and that an error
    return caught.value


def assert_discreet(error: BaseException) -> None:
    """No secret in any text of the error, nor in any object that hangs on it or on what came before it."""
    shown = [str(error), repr(error), *traceback.format_exception(error, chain=True)]
    waiting: list[BaseException | None] = [error]
    seen: list[BaseException] = []
    while waiting:
        each = waiting.pop()
        if each is None or each in seen:
            continue
        seen.append(each)
        waiting += [each.__cause__, each.__context__]
        shown.append(repr(each.args))
        for value in vars(each).values():
            shown.append(repr(value))
            shown.append(repr(vars(value)) if hasattr(value, "__dict__") else "")
    assert all(isinstance(each, TransportError | LoginRefused) for each in seen)
    for secret in (SECRET, TOKEN):
        assert not [text for text in shown if secret in text]


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


# --- what is sent ----------------------------------------------------------------------------------------------------


@every_transport
def test_login_and_renewal(stack: Stack, tradovate_emulator: Emulator) -> None:
    """Both auth calls arrive as they were made and their answers as they were sent."""
    credentials = Credentials(**tradovate_emulator.credentials)
    transport = stack.transport()
    reply = transport.send(login_call(credentials, tradovate_emulator.url), 5.0)
    verdict = read_reply(reply)
    assert isinstance(verdict, Granted)
    assert (reply.status, reply.header("content-type")) == (200, "application/json")
    token = TokenProvider(
        credentials, environment=tradovate_emulator.url, storage=MemoryStorage(), transport=transport
    )
    with token as provider:
        renewal = transport.send(renewal_call(provider.get(), tradovate_emulator.url), 5.0)
        assert isinstance(read_reply(renewal), Granted)
    login = tradovate_emulator.requests[0]
    assert (login.method, login.headers["Content-Type"], login.authorization) == (
        "POST",
        "application/json",
        None,
    )
    assert json.loads(login.body)["password"] == credentials.password
    asked = tradovate_emulator.requests[-1]
    assert (asked.method, asked.headers["Accept"], asked.headers.get("Content-Length")) == (
        "GET",
        "application/json",
        None,
    )


@every_transport
def test_redirects_are_not_followed(stack: Stack) -> None:
    """A redirect is an answer, whatever its status: nothing is sent to where it points."""
    with RawServer(lambda _: None) as trap:
        for status in (301, 302, 303, 307, 308):
            head = (
                f"HTTP/1.1 {status} Moved\r\nLocation: {trap.url}\r\nContent-Length: 0\r\nConnection: close"
            )
            with RawServer(answering(head.encode())) as server:
                reply = stack.transport().send(call_to(server.url), 5.0)
            assert (reply.status, reply.header("location")) == (status, trap.url)
        assert trap.arrived == []


@every_transport
def test_compressed_answers_are_unpacked(stack: Stack) -> None:
    """A gzip answer is read as what it holds, chunked or not."""
    import gzip

    packed = gzip.compress(b'{"errorText": "no"}' * 100)
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(packed), packed)
    for head, body in (
        (f"Content-Length: {len(packed)}".encode(), packed),
        (b"Transfer-Encoding: chunked", chunked),
    ):
        answer = answering(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Encoding: gzip\r\n" + head, body)
        with RawServer(answer) as server:
            reply = stack.transport().send(call_to(server.url), 5.0)
        assert reply.body == b'{"errorText": "no"}' * 100


# --- what went wrong, and whether the request may have arrived -----------------------------------------------------------


@every_transport
def test_refused_connections_were_not_sent(stack: Stack) -> None:
    """Nobody listens: not sent, and the error says what it was."""
    error = fails(stack, f"http://127.0.0.1:{free_port()}/v1/x")
    assert error.sent is False
    assert "refused" in error.message.lower() or "connection" in error.message.lower()


@every_transport
def test_unknown_names_were_not_sent(stack: Stack) -> None:
    """A name that does not resolve: not sent."""
    assert fails(stack, "http://no-such-host.invalid/v1/x", timeout=20.0).sent is False


@every_transport
def test_a_connection_that_never_comes_was_not_sent(stack: Stack) -> None:
    """A host that swallows connection attempts: not sent, and given up before the whole time is over."""
    with contextlib.ExitStack() as opened:
        full = opened.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        assert fails(stack, f"http://127.0.0.1:{full.getsockname()[1]}/v1/x", timeout=0.6).sent is False


@every_transport
@pytest.mark.parametrize("kind", ["drop_after", "truncate", "hang"])
def test_lost_answers_may_have_been_sent(stack: Stack, kind: Any, tradovate_emulator: Emulator) -> None:
    """A connection that breaks, an answer cut short, none at all: the login may have opened a session."""
    tradovate_emulator.inject(Fault("login", kind))
    error = fails(stack, f"{tradovate_emulator.url}/auth/accesstokenrequest", timeout=0.6)
    assert error.sent is True
    tradovate_emulator.release()


@every_transport
def test_an_answer_that_is_no_http(stack: Stack) -> None:
    """Garbage for an answer: sent, and an error."""
    with RawServer(answering(b"\x00\x01 what?")) as server:
        assert fails(stack, server.url).sent is True


@every_transport
def test_an_unpackable_answer(stack: Stack) -> None:
    """An answer that says gzip and is none: sent, and an error."""
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Encoding: gzip\r\nContent-Length: 4"
    with RawServer(answering(head, b"none")) as server:
        assert fails(stack, server.url).sent is True


@every_transport
@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"], ids=["head", "body"]
)
def test_the_whole_exchange_has_one_deadline(stack: Stack, head: bytes) -> None:
    """A server that sends a byte now and then, in the head or in the body, does not hold a call beyond its time."""

    def trickle(connection: socket.socket) -> None:
        connection.sendall(head or b"HTTP/1.1 200 OK\r\n")
        while not server.over.wait(0.02):
            connection.sendall(b"x" if head else b"X: y\r\n")

    with RawServer(trickle) as server:
        started = time.monotonic()
        assert fails(stack, server.url, timeout=0.5).sent is True
        assert time.monotonic() - started < 0.5 * 6  # it would be twenty seconds


@every_transport
@pytest.mark.parametrize("chunked", [True, False])
def test_answers_beyond_the_limit_are_not_read(stack: Stack, chunked: bool) -> None:
    """An answer of more than a megabyte is given up on the way, whether its length was announced or not."""

    def flood(connection: socket.socket) -> None:
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 999999999"
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
        piece = b"10000\r\n" + b"x" * 65536 + b"\r\n" if chunked else b"x" * 65536
        for _ in range(64 * ANSWER_LIMIT // 65536):
            sent.append(len(piece))
            connection.sendall(piece)

    sent: list[int] = []
    with RawServer(flood) as server:
        assert fails(stack, server.url).sent is True
    assert sum(sent) < 32 * ANSWER_LIMIT


@every_transport
def test_an_answer_of_just_the_limit_is_read(stack: Stack) -> None:
    """A megabyte is still an answer."""
    head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {ANSWER_LIMIT}".encode()
    with RawServer(answering(head, b"x" * ANSWER_LIMIT)) as server:
        assert len(stack.transport().send(call_to(server.url), 10.0).body) == ANSWER_LIMIT


@every_transport
def test_a_name_that_cannot_be_found_in_time_was_not_sent(
    stack: Stack, tradovate_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver that hangs longer than the call may take costs no login: nothing was sent, nor is it when it comes back."""
    hanging, back, found = threading.Event(), threading.Event(), threading.Event()
    real = socket.getaddrinfo

    def resolve(*args: Any, **options: Any) -> Any:
        hanging.set()
        back.wait(20)
        found.set()
        return real(*args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    url = f"http://localhost:{tradovate_emulator.port}/v1/auth/accesstokenrequest"
    with pytest.raises(TransportError) as caught:
        stack.transport().send(Call("POST", url, {}, SECRET.encode()), 0.2)
    assert not caught.value.sent
    assert hanging.is_set()
    assert not found.is_set(), "the call has its own end of time"
    back.set()
    for thread in threading.enumerate():
        if thread.name == "tradovate_auth call":
            thread.join(20)
    assert tradovate_emulator.counts.logins == 0


def test_what_is_given_up_does_not_begin_and_what_has_begun_was_sent() -> None:
    """Either the exchange begins, or its end of time says that it was not sent: never both, never neither."""
    back, begun = threading.Event(), threading.Event()

    def exchange() -> Reply:
        begun.set()
        back.wait(20)
        return Reply(200, {}, b"")

    with pytest.raises(TransportError, match="could not be found") as caught:
        within(0.05, exchange, lambda: back.wait(20))
    assert not caught.value.sent
    back.set()
    for thread in threading.enumerate():
        if thread.name == "tradovate_auth call":
            thread.join(20)
    assert not begun.is_set()
    back.clear()
    with pytest.raises(TransportError, match="did not answer") as caught:
        within(1.0, exchange)
    assert caught.value.sent
    assert begun.is_set()
    back.set()


def test_names_are_looked_up_by_whoever_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that a proxy will resolve is not asked for here: that may take long, or be seen where it should not."""
    asked: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: asked.append(host))
    look_up("http://name.invalid/v1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "other.invalid")
    look_up("http://name.invalid/v1")
    look_up("http://other.invalid/v1")
    assert asked == ["name.invalid", "other.invalid"]
    monkeypatch.undo()
    look_up("http://no-such-host.invalid/v1")  # a failure is for the library to tell


def test_within_hands_on_what_is_no_transport_error() -> None:
    """A fault of the code in an exchange comes out of it as it is, not as a time-out."""

    def broken() -> Reply:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        within(5.0, broken)


def test_within_needs_no_thread_at_the_end_of_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started any more, the exchange is made on the caller's."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    here = threading.get_ident()
    assert within(5.0, lambda: Reply(threading.get_ident(), {}, b"")).status == here


def test_root_cause_names_the_bottom_and_no_text() -> None:
    """Of a chain only the innermost type and the system's own words are told; loops end."""
    inner = OSError(111, "Connection refused")
    outer = ValueError(f"while sending {SECRET}")
    outer.__cause__ = RuntimeError(SECRET, inner)
    assert root_cause(outer) == "ConnectionRefusedError (Connection refused)"
    assert root_cause(ValueError(SECRET)) == "ValueError"
    outer.__cause__ = None
    outer.__context__ = outer
    assert root_cause(outer) == "ValueError"


# --- proxies and certificates ----------------------------------------------------------------------------------------


@every_transport
def test_a_proxy_that_refuses_was_not_sent(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy where nobody listens, from the argument or the environment: not sent, and the server not asked past it."""
    with RawServer(lambda _: None) as server:
        proxy = f"http://127.0.0.1:{free_port()}"
        assert fails(stack, server.url, proxy=proxy).sent is False
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("http_proxy", proxy)
        assert fails(stack, server.url).sent is False
        assert server.arrived == []
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert fails(stack, server.url).sent is True
        assert len(server.arrived) == 1


@every_transport
def test_calls_go_through_the_environments_proxy(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy of the environment gets the call, with the whole URL; its argument wins over the environment."""
    answer = answering(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2", b"{}")
    with RawServer(answer) as proxy, RawServer(answer) as other:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        url = "http://127.0.0.1:9/v1/auth/renewaccesstoken"
        assert stack.transport().send(call_to(url), 5.0).body == b"{}"
        assert stack.transport(proxy=f"http://127.0.0.1:{other.port}").send(call_to(url), 5.0).status == 200
        assert [each.split(b"\r\n")[0] for each in proxy.arrived] == [f"POST {url} HTTP/1.1".encode()]
        assert len(other.arrived) == 1


@every_transport
def test_a_proxy_that_forbids_a_tunnel_was_not_sent(stack: Stack) -> None:
    """A proxy that answers CONNECT with 403: the call itself never left, and its secrets were not shown to the proxy."""
    refusal = answering(b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0")
    with RawServer(refusal) as proxy:
        error = fails(stack, "https://auth.example/v1/x", proxy=f"http://127.0.0.1:{proxy.port}")
        assert error.sent is False
        assert proxy.arrived[0].startswith(b"CONNECT auth.example:443 ")
        assert TOKEN.encode() not in proxy.arrived[0]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def tls_server(certificate: Path) -> Iterator[RawServer]:
    """A server with that certificate, which asks for one of the client's and tells whether it came."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_OPTIONAL

    def answer(connection: socket.socket) -> None:
        assert isinstance(connection, ssl.SSLSocket)
        body = b"known" if connection.getpeercert() else b"anonymous"
        head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)

    with RawServer(answer, context) as server:
        yield server


@every_transport
def test_unknown_certificates_are_refused_before_anything_is_sent(
    stack: Stack, tls_server: RawServer
) -> None:
    """A self-signed certificate ends the call: not sent."""
    assert fails(stack, f"https://127.0.0.1:{tls_server.port}/v1/x").sent is False
    assert tls_server.arrived == []


@every_transport
def test_certificates_of_ones_own(stack: Stack, tls_server: RawServer, certificate: Path) -> None:
    """`verify` takes a CA bundle's path, `cert` a client certificate's."""
    call = call_to(f"https://127.0.0.1:{tls_server.port}/v1/x")
    assert stack.transport(verify=str(certificate)).send(call, 5.0).body == b"anonymous"
    for cert in (str(certificate), (str(certificate), str(certificate))):
        assert stack.transport(verify=str(certificate), cert=cert).send(call, 5.0).body == b"known"


@pytest.mark.parametrize("stack", [HTTPX, HTTPX2, AIOHTTP], ids=str)
def test_a_client_certificate_beside_a_switch(stack: Stack, tls_server: RawServer, certificate: Path) -> None:
    """`cert` counts with `verify=False` too, and leaves the library's own roots in force with `verify=True`."""
    url = f"https://127.0.0.1:{tls_server.port}/v1/x"
    transport = stack.transport(verify=False, cert=str(certificate))
    assert transport.send(call_to(url), 5.0).body == b"known"
    assert fails(stack, url, cert=str(certificate)).sent is False


@every_transport
@pytest.mark.parametrize(
    "options", [{"verify": "/nonexistent"}, {"cert": ("/nonexistent", "/nonexistent")}], ids=str
)
def test_certificates_that_cannot_be_read(stack: Stack, options: dict[str, Any]) -> None:
    """A path that leads nowhere is an error at once, not a login that is lost later."""
    with pytest.raises(ConfigurationError, match="FileNotFoundError"):
        stack.transport(**options)


@every_transport
def test_a_folder_of_certificates(stack: Stack, tmp_path: Path, tls_server: RawServer) -> None:
    """`verify` takes a folder; an empty one trusts nobody."""
    assert fails(stack, f"https://127.0.0.1:{tls_server.port}/v1/x", verify=str(tmp_path)).sent is False


@pytest.mark.parametrize("stack", [HTTPX, HTTPX2], ids=str)
def test_a_client_of_ones_own_brings_its_own_options(stack: Stack) -> None:
    """What only a new client could heed is refused beside a finished one, rather than ignored."""
    client = own_session(stack)
    for options in ({"proxy": "http://127.0.0.1:9"}, {"verify": False}, {"cert": "x"}):
        with pytest.raises(ConfigurationError, match="handed in"):
            stack.transport(client, **options)
    client.close()


@pytest.mark.parametrize("stack", [HTTPX, HTTPX2, AIOHTTP], ids=str)
def test_a_context_of_ones_own(stack: Stack, tls_server: RawServer, certificate: Path) -> None:
    """`verify` takes an SSL context where the library does."""
    context = ssl.create_default_context(cafile=str(certificate))
    call = call_to(f"https://127.0.0.1:{tls_server.port}/v1/x")
    assert stack.transport(verify=context).send(call, 5.0).status == 200


@every_transport
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_verification_can_be_switched_off(stack: Stack, tls_server: RawServer) -> None:
    """`verify=False` takes any certificate."""
    call = call_to(f"https://127.0.0.1:{tls_server.port}/v1/x")
    assert stack.transport(verify=False).send(call, 5.0).status == 200


# --- the user's own session ------------------------------------------------------------------------------------------


def own_session(stack: Stack, auth: Any = None, marker: str = "mine") -> Any:
    """A session or client of the user's own with a header, or the factory of one; with the auth object if given."""
    headers = {"X-Mine": marker}
    if stack is REQUESTS:
        session = requests.Session()
        session.headers.update(headers)
        session.auth = auth
        return session
    if stack is AIOHTTP:
        middlewares = () if auth is None else (auth,)
        return lambda: aiohttp.ClientSession(
            headers=headers, middlewares=middlewares, trust_env=True, raise_for_status=True
        )
    library = httpx if stack is HTTPX else httpx2
    return library.Client(headers=headers, auth=auth, follow_redirects=True)


@every_transport
def test_calls_go_through_the_users_own_session(
    stack: Stack, tradovate_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that was handed in is used, with its headers; a netrc is not, and a requests or httpx one stays open."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    session = own_session(stack)
    credentials = Credentials(**tradovate_emulator.credentials)
    with TokenProvider(
        credentials,
        environment=tradovate_emulator.url,
        storage=MemoryStorage(),
        transport=stack.transport(session),
    ) as provider:
        provider.renew()
    if stack is not AIOHTTP:
        assert session.get(f"{tradovate_emulator.url}/nothing").status_code in (401, 404)
        session.close()
    login, renewal = tradovate_emulator.requests[:2]
    assert [login.headers.get("X-Mine"), renewal.headers.get("X-Mine")] == ["mine", "mine"]
    assert login.authorization is None
    assert str(renewal.authorization).startswith("Bearer ")


@every_transport
def test_the_authenticated_session_itself_does_not_recurse(
    stack: Stack, tradovate_emulator: Emulator
) -> None:
    """Even where the transport is given the very session that it authenticates, auth calls are not authenticated."""
    holder: list[Any] = []

    class Late:
        """An auth object that exists only after its own transport."""

        def __init__(self) -> None:
            self.used = 0

        def __call__(self, *arguments: Any) -> Any:
            self.used += 1
            return holder[0](*arguments)

    late = Late()
    session = own_session(stack, late if stack in (REQUESTS, AIOHTTP) else None)
    auth = stack.auth(
        Credentials(**tradovate_emulator.credentials),
        environment=tradovate_emulator.url,
        storage=MemoryStorage(),
        transport=stack.transport(session),
    )
    holder.append(auth)
    if stack in (HTTPX, HTTPX2):
        session.auth = auth
    with auth:
        assert auth.provider.get().generation == 1
        assert auth.provider.renew().generation == 2
    if stack is not AIOHTTP:
        session.close()
    assert late.used == 0
    assert (tradovate_emulator.counts.logins, tradovate_emulator.counts.renewals) == (1, 1)


@every_transport
def test_no_password_hangs_on_a_providers_error(stack: Stack) -> None:
    """Nor on the error that finally comes out of `get`, or on what it carries along."""
    wrong = Credentials("trader", SECRET)
    with RawServer(lambda _: None) as server:
        provider = TokenProvider(
            wrong,
            environment=f"http://127.0.0.1:{server.port}/v1",
            storage=MemoryStorage(),
            transport=stack.transport(),
        )
        with provider, pytest.raises(TransportError) as caught:
            provider.get()
    assert_discreet(caught.value)


def test_no_password_hangs_on_the_error_of_a_foreign_transport() -> None:
    """A transport of the user's own may raise what it likes: only its type's name is told."""

    class Leaky:
        """A transport that fails with everything it knows."""

        def send(self, call: Call, timeout: float) -> Reply:
            """Raise it."""
            raise RuntimeError(call.body, timeout)

    provider = TokenProvider(
        Credentials("trader", SECRET),
        environment="http://127.0.0.1:9/v1",
        storage=MemoryStorage(),
        transport=Leaky(),
    )
    with provider, pytest.raises(TransportError) as caught:
        provider.get()
    assert_discreet(caught.value)


# --- which one is taken ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "stack"),
    [
        ((), HTTPX2),
        (("httpx2",), HTTPX),
        (("httpx2", "httpx"), REQUESTS),
        (("httpx2", "httpx", "requests"), AIOHTTP),
    ],
)
def test_the_first_installed_library_carries_a_bare_provider(
    missing: tuple[str, ...], stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is httpx2, httpx, requests, aiohttp."""
    _hide(monkeypatch, *missing)
    assert type(first_installed()) is stack.transport


def test_without_any_library_the_advice_is_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """No client library at all is a configuration error that says what to install."""
    _hide(monkeypatch, "httpx2", "httpx", "requests", "aiohttp")
    with pytest.raises(ConfigurationError, match="pip install"):
        first_installed()


def _hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str) -> Any:
        return None if name in names else real(name)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


def test_replies_and_calls_show_no_secret() -> None:
    """Neither a call nor a reply shows headers or bodies."""
    reply = Reply(200, {"X-Token": TOKEN, "Date": "now"}, SECRET.encode())
    shown = repr(call_to("http://127.0.0.1/v1/x")) + repr(reply)
    assert (SECRET in shown, TOKEN in shown) == (False, False)
    assert (reply.header("date"), reply.header("absent")) == ("now", None)
