"""A server with TLS that answers everything with 200 and remembers the tokens that it was shown."""

import hashlib
import ssl
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trustme

__all__ = ["TLSServer"]


class TLSServer:
    """A context manager; everything in it may be read while it runs."""

    def __init__(self) -> None:
        self.authorizations: list[str | None] = []
        """What each request carried."""
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(context)
        pem = certificate.cert_chain_pems[0].bytes().decode()
        self.fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
        """Of its certificate."""
        self._folder = tempfile.TemporaryDirectory()
        self.authority = str(Path(self._folder.name, "authority.pem"))
        """The path of a bundle by which its certificate is good."""
        authority.cert_pem.write_to_path(self.authority)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self.authorizations))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_port}"
        """Where it is."""
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._folder.cleanup()


def _handler(authorizations: list[str | None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            authorizations.append(self.headers["Authorization"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
