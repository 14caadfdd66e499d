"""A real uvicorn on a real socket, in a thread of the test."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn


class Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets=sockets)
        self.ready.set()


@contextmanager
def served(app: Any, **options: Any) -> Iterator[str]:
    """Serve an application, and give its URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        options.setdefault("log_level", "critical")
        options.setdefault("timeout_keep_alive", 60)  # or it cuts off who is slow
        server = Server(uvicorn.Config(app, **options))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            assert server.ready.wait(20), "uvicorn did not start"
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive(), "uvicorn did not stop"
