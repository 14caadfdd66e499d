"""The Flask 0.1 API on an ASGI core: ``from asyncflask import Flask``."""

from markupsafe import Markup, escape

from .app import Flask
from .context import _request_ctx_stack, current_app, g, request, session
from .exceptions import HTTPException, abort
from .helpers import flash, get_flashed_messages, jsonify, redirect, url_for
from .templating import (
    render_template,
    render_template_async,
    render_template_string,
    render_template_string_async,
)
from .wrappers import Request, Response

__all__ = [
    "Flask",
    "HTTPException",
    "Markup",
    "Request",
    "Response",
    "_request_ctx_stack",
    "abort",
    "current_app",
    "escape",
    "flash",
    "g",
    "get_flashed_messages",
    "jsonify",
    "redirect",
    "render_template",
    "render_template_async",
    "render_template_string",
    "render_template_string_async",
    "request",
    "session",
    "url_for",
]
