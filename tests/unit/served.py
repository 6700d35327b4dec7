"""A server of the standard library, served in a thread while a test talks to it."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.server import ThreadingHTTPServer

Server = TypeVar("Server", bound="ThreadingHTTPServer")
POLL_S = 0.01


@contextmanager
def served(server: Server) -> Iterator[Server]:
    """Serve until the block ends; then nothing listens any more, and no request of it is waited for."""
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
