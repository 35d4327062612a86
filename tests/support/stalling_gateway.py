"""An HTTP gateway before a real server: passes everything on, and holds the first call to one path until it is told."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PATIENCE_SECONDS = 150.0


@dataclass(frozen=True)
class Gateway:
    """`url` leads to the server behind it. `is_held` is set when the call has come, `go_on` lets it through."""

    url: str
    is_held: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)


@contextmanager
def stalling_gateway(server_url: str, *, held_path: str) -> Generator[Gateway]:
    """A gateway to `server_url`, scheme and host with a path; the first call to a path that ends so is held."""
    there = urlsplit(server_url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.path.endswith(held_path) and not gateway.is_held.is_set():
                gateway.is_held.set()
                gateway.go_on.wait(PATIENCE_SECONDS)
            wanted = {name: value for name, value in self.headers.items() if name.lower() != "accept-encoding"}
            connection = http.client.HTTPConnection(there.netloc, timeout=PATIENCE_SECONDS)
            try:
                connection.request(self.command, self.path, body, wanted)
                answer = connection.getresponse()
                content = answer.read()
            finally:
                connection.close()
            self.send_response(answer.status)
            for name in ("content-type", "x-csrf-token"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            with suppress(ConnectionError):  # who waited may be gone
                self.wfile.write(content)
                self.wfile.flush()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        gateway = Gateway(f"http://127.0.0.1:{server.server_port}{there.path}")
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        try:
            yield gateway
        finally:
            gateway.go_on.set()
            server.shutdown()
            serving.join()
