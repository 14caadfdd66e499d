"""The WSGI driver, called as a server calls it (PEP 3333), checker in between."""

from __future__ import annotations

import asyncio
import contextvars
import io
import os
import signal
import sys
import threading
import tracemalloc
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import anyio
import pytest
import starlette.background
import starlette.responses

from asyncflask import (
    Flask,
    _request_ctx_stack,
    current_app,
    g,
    render_template_string,
    render_template_string_async,
    request,
    session,
    url_for,
)

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")
MIB = 1 << 20
TERMINATED = {"wsgi.input_terminated": True}
KINDS = pytest.mark.parametrize("kind", ["plain", "async"])


class Opened:
    """A response whose header the application has sent; iterate over its body."""

    def __init__(self, app: Any, environ: dict[str, Any], checked: bool) -> None:
        self.said: list[Any] = []
        self.app_iter = (validator(app) if checked else app)(environ, self.start)
        self.chunks = iter(self.app_iter)
        (self.status, self.fields), self.environ = self.said, environ
        assert type(self.status) is str
        assert {type(text) for field in self.fields for text in field} <= {str}
        self.headers = {name.lower(): value for name, value in self.fields}

    def start(self, status: str, headers: list[Any], exc_info: Any = None) -> Any:
        assert not self.said, "start_response was called twice"
        self.said += status, headers
        return self.refuse_to_write

    def refuse_to_write(self, chunk: bytes) -> None:
        raise AssertionError(f"write({chunk!r}) was used")

    def __iter__(self) -> Iterator[bytes]:
        return self.chunks

    def __next__(self) -> bytes:
        return next(self.chunks)

    def close(self) -> None:
        if hasattr(self.app_iter, "close"):
            self.app_iter.close()


class Opened(Opened):
    pass
