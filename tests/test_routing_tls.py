"""Requests that are routed over TLS: name, certificate, `Host`, cookies and connections are those of the assigned host."""

import datetime as dt
import http.server
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
from stacks import AIOHTTP, REQUESTS, Body, Client, Stack, every_stack, plain_environment
from values import credentials

from tradovate_auth import Environment, TokenProvider
from tradovate_auth.requests import RequestsTransport
from tradovate_auth.storage import MemoryStorage

__all__ = ["plain_environment"]  # a fixture

HOME, ORG_A, ORG_B = "home.localhost", "org-a.localhost", "org-b.localhost"
ADDRESSES = {HOME: "127.0.0.1", ORG_A: "127.0.0.2", ORG_B: "127.0.0.3"}


@dataclass(frozen=True)
class Request:
    """An ordinary request as one of the servers got it."""

    server: str
    name: str | None
    """What the client asked for in the TLS handshake."""
    host: str
    connection: tuple[str, int]
    cookie: str | None


@dataclass
class Servers:
    """Three hosts on one port, each with a certificate for its own name alone."""

    folder: Path
    port: int = 0
    assigned: str = ORG_A
    wrong: set[str] = field(default_factory=set)
    seen: list[Request] = field(default_factory=list)
    shown: dict[str, str] = field(default_factory=lambda: {name: name for name in ADDRESSES})
    """Whose certificate each of them shows."""

    def start(self, opened: ExitStack) -> None:
        """Start them; they are stopped with the stack."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.folder / "ca.pem"))
        contexts = {name: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for name in ADDRESSES}
        for name, address in ADDRESSES.items():
            context = contexts[name]
            authority.issue_cert(name).configure_cert(context)
            context.sni_callback = self._shaking_hands(name, contexts)
            server = opened.enter_context(_Server((address, self.port), _handler(self, name)))
            self.port = server.server_address[1]
            server.socket = context.wrap_socket(server.socket, server_side=True)
            opened.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def _shaking_hands(self, server: str, contexts: dict[str, ssl.SSLContext]) -> Any:
        def note_name(connection: Any, name: str | None, _: ssl.SSLContext) -> None:
            connection.asked_for = name
            connection.context = contexts[self.shown[server]]

        return note_name

    @property
    def bundle(self) -> str:
        """The file with the authority that all trust."""
        return str(self.folder / "ca.pem")

    def provider(self) -> TokenProvider:
        """Return a provider whose auth calls trust that authority."""
        environment = Environment(f"https://{HOME}:{self.port}/v1", domains=("localhost",))
        transport = RequestsTransport(verify=self.bundle)
        return TokenProvider(
            credentials(), environment=environment, storage=MemoryStorage(), transport=transport
        )

    def client(self, stack: Stack, auth: Any) -> Client:
        """Open a client that trusts that authority."""
        if stack is REQUESTS:
            return stack.client(auth, verify=self.bundle)
        return stack.client(auth) if stack is AIOHTTP else stack.client(auth, verify=self.context())

    def context(self) -> ssl.SSLContext:
        """Return what trusts that authority."""
        return ssl.create_default_context(cafile=self.bundle)

    def answer(self, server: str, path: str) -> tuple[int, dict[str, Any] | None]:
        """Return status and content."""
        if "/auth/" not in path:
            return (421, None) if server in self.wrong else (200, {})
        end = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=4800)
        token = {"accessToken": f"token-{id(path)}", "expirationTime": end.isoformat()}
        return 200, {**token, "apiHosts": {"demo": self.assigned}}


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error."""


def _handler(servers: Servers, name: str) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, content = servers.answer(name, self.path)
            body = b"" if content is None else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if "/auth/" not in self.path:
                asked: Any = self.connection
                host, cookie = str(self.headers["Host"]), self.headers["Cookie"]
                servers.seen.append(Request(name, asked.asked_for, host, self.client_address, cookie))
                self.send_header("Set-Cookie", f"from={name.partition('.')[0]}; Path=/")
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    """Yield the three hosts, whose names resolve for as long as a test lasts."""
    resolve = socket.getaddrinfo

    def resolve_here(host: Any, *args: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        return resolve(ADDRESSES.get(name, name), *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_here)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # requests puts them before what a session says
        monkeypatch.delenv(name, raising=False)
    with ExitStack() as opened:
        made = Servers(tmp_path)
        made.start(opened)
        yield made


@every_stack
def test_name_host_and_connections_are_the_assigned_hosts(stack: Stack, servers: Servers) -> None:
    """Calls to the well-known host reach the assigned one under its own name, are checked against its own certificate, keep
    to one connection there, and move to another host in all of that. `Host` follows, also where the caller has set one.
    """
    url = f"https://{HOME}:{servers.port}/v1/account/list"
    own: dict[str, Any] = {"ssl": servers.context()} if stack is AIOHTTP else {}
    with servers.provider() as provider, servers.client(stack, stack.auth(provider)) as client:
        assert [client.get(url, **own).status for _ in range(2)] == [200, 200]
        assert client.post(url, Body("json"), headers={"Host": f"{HOME}:{servers.port}"}, **own).status == 200
        servers.assigned, servers.wrong = ORG_B, {ORG_A}
        assert [client.get(url, **own).status for _ in range(2)] == [200, 200]
    assert [each.server for each in servers.seen] == [ORG_A] * 4 + [ORG_B] * 2
    for each in servers.seen:
        assert each.name == each.server
        assert each.host == f"{each.server}:{servers.port}"
    assert [
        len({each.connection for each in servers.seen if each.server == org}) for org in (ORG_A, ORG_B)
    ] == [
        1,
        1,
    ]


@every_stack
def test_another_hosts_certificate_is_no_good(stack: Stack, servers: Servers) -> None:
    """An assigned host that shows the certificate of the well-known one gets nothing."""
    url = f"https://{HOME}:{servers.port}/v1/account/list"
    own: dict[str, Any] = {"ssl": servers.context()} if stack is AIOHTTP else {}
    with servers.provider() as provider, servers.client(stack, stack.auth(provider)) as client:
        provider.get()
        servers.shown[ORG_A] = HOME
        with pytest.raises(stack.error):
            client.get(url, **own)
    assert servers.seen == []


def test_cookies_of_an_assigned_host_come_back_to_it(servers: Servers) -> None:
    """With requests, a routed call carries the cookies of the host that it is sent to, and no other host's; a Cookie header
    of the caller's own stays as it is.
    """
    url = f"https://{HOME}:{servers.port}/v1/account/list"
    with servers.provider() as provider, servers.client(REQUESTS, REQUESTS.auth(provider)) as client:
        for _ in range(2):
            client.get(url)
        client.get(url, headers={"Cookie": "mine=1"})
        servers.assigned, servers.wrong = ORG_B, {ORG_A}
        client.get(url)
        client.get(url)
    assert [(each.server, each.cookie) for each in servers.seen] == [
        (ORG_A, None),
        (ORG_A, "from=org-a"),
        (ORG_A, "mine=1"),
        (ORG_A, "from=org-a"),
        (ORG_B, None),
        (ORG_B, "from=org-b"),
    ]
