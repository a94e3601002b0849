"""The auth calls by way of proxies, and whose certificates they believe."""

import datetime as dt
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from stacks import AIOHTTP, HTTPX, HTTPX2, Stack, plain_environment
from transport_tools import TOKEN, RawServer, answering, call_to, every_transport, fails, free_port

from tradovate_auth import ConfigurationError

__all__ = ["plain_environment"]  # a fixture


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
