"""The peers: which there are, and their versions."""

import importlib
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

#: in the order of the columns; ``floor`` is no framework at all
PEERS = [
    "asyncflask",
    "starlette",
    "fastapi",
    "quart",
    "litestar",
    "falcon",
    "blacksheep",
    "flask",
    "floor",
]

#: what else takes part
OTHERS = [
    "anyio",
    "httptools",
    "itsdangerous",
    "jinja2",
    "python-multipart",
    "multipart",
    "uvicorn",
    "uvloop",
    "werkzeug",
]


def factory(peer: str, job: str, protocol: str = "ASGI") -> Callable[[], Any] | None:
    """Return what makes a peer's application for a job, if it has one."""
    module = importlib.import_module(f".apps.{peer}", __package__)
    made: Callable[[], Any] | None = getattr(module, protocol, {}).get(job)
    return made


def describe_run() -> str:
    """Say what is measured, on what, and when, in one paragraph."""
    names = [name for name in PEERS if name != "floor"] + OTHERS
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    python = f"{platform.python_implementation()} {platform.python_version()}"
    date = datetime.now(UTC).date()
    return f"{date}, {python}, {platform.system()} {platform.machine()}: {versions}."
