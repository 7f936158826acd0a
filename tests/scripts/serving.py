"""A server on this machine, for the tests of downloads."""

import http.server
import threading
from contextlib import contextmanager


class Quiet(http.server.BaseHTTPRequestHandler):
    """Base of handlers: does not log."""

    def log_message(self, *unused):
        pass


@contextmanager
def serving(handler):
    """The running server, with its ``address`` and the list ``asked``, which handlers fill."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.asked = []
        running.address = f"http://127.0.0.1:{running.server_port}"
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()
