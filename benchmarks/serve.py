"""``python -m benchmarks.serve PEER JOB``: serve a peer's application with uvicorn.

It listens on any free port of this machine, prints which, and serves until it is
told to stop.
"""

import resource
import socket
import sys

import uvicorn

from .peers import factory


def raise_file_limit() -> None:
    """Allow as many open connections as may be."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main(peer: str, job: str) -> None:
    """Serve the application of a peer for a job."""
    build = factory(peer, job)
    if build is None:
        raise SystemExit(f"{peer} has nothing for the job {job!r}.")

    raise_file_limit()
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(
        build(), loop="uvloop", http="httptools", log_level="critical", access_log=False
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
