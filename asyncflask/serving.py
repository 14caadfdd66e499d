"""The development server: uvicorn, in this process, until Ctrl-C."""

from __future__ import annotations

import difflib
import inspect
import logging
from typing import TYPE_CHECKING, Any

import uvicorn

from .loops import in_loop

if TYPE_CHECKING:
    from .app import Flask


#: what uvicorn does with more than one process, and what run() says itself
NOT_HERE = {"app", "host", "port", "reload", "workers"}
#: seconds that open requests get to finish after Ctrl-C
GRACE = 3


class Server(uvicorn.Server):
    """A uvicorn server that says where it listens."""

    async def startup(self, sockets: Any = None) -> None:
        """Listen, and print the address."""
        await super().startup(sockets=sockets)
        if logging.getLogger("uvicorn.error").isEnabledFor(logging.INFO):
            return  # uvicorn has said it itself

        for server in getattr(self, "servers", ()):
            for socket in server.sockets:
                address, port = socket.getsockname()[:2]
                host = f"[{address}]" if ":" in address else address
                print(f" * Running on http://{host}:{port}/ (Press CTRL+C to quit)")


def run(app: Flask, host: str, port: int, options: dict[str, Any]) -> None:
    """Serve an application here until Ctrl-C.

    :raises TypeError: for an option that uvicorn does not know.
    :raises RuntimeError: where an event loop runs already.
    """
    check_options(options)
    if in_loop():
        raise RuntimeError(
            "app.run() starts an event loop, and one runs here already. Await"
            " uvicorn.Server(uvicorn.Config(app)).serve() instead."
        )
    options.setdefault("timeout_graceful_shutdown", GRACE)
    server = Server(uvicorn.Config(app, host=host, port=port, **options))
    try:
        server.run()
    except KeyboardInterrupt:
        pass


def check_options(options: dict[str, Any]) -> None:
    """Refuse options that uvicorn does not know, by name.

    :raises TypeError: when there is one.
    """
    known = set(inspect.signature(uvicorn.Config).parameters) - NOT_HERE
    for name in options.keys() - known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see uvicorn.Config for those."
        raise TypeError(
            f"app.run() got {name}=…, which is no option of uvicorn; {hint}"
        )
