"""A reverse proxy that has a server below a path, and streams what passes."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATIENCE_S = 60.0
_ITS_OWN = frozenset({"connection", "transfer-encoding", "keep-alive"})


@contextmanager
def below(path: str, port: int, *, strips: bool, headers: Mapping[str, str] | None = None) -> Iterator[int]:
    """The port of a proxy that hands on what is asked for below ``path``, and answers 404 to all else.

    Args:
        port: the server's.
        strips: takes the path off, as nginx does by a slash behind the server's address.
        headers: added to each request.
    """

    class Handler(BaseHTTPRequestHandler):
        def hand_on(self) -> None:
            if not self.path.startswith(f"{path}/"):
                # browsers ask for the icon of the whole machine by themselves
                if self.path != "/favicon.ico":
                    return self.send_error(404, "outside of the proxy's path")
                self.send_response_only(204)
                return self.end_headers()
            length = int(self.headers.get("Content-Length") or 0)
            sent = {name: value for name, value in self.headers.items() if name.lower() not in _ITS_OWN}
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
            where = self.path[len(path) :] if strips else self.path
            with suppress(OSError):  # either side may go at any time
                connection.request(self.command, where, self.rfile.read(length), {**sent, **(headers or {})})
                answer = connection.getresponse()
                self.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in _ITS_OWN:
                        self.send_header(name, value)
                self.send_header("Connection", "close")
                self.end_headers()
                while piece := answer.read1(65536):
                    self.wfile.write(piece)
                    self.wfile.flush()
            connection.close()
            return None

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = hand_on

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
