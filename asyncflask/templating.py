"""Templates: the Jinja environment, and rendering with what the app adds.

Rendering is plain work for the processor and never waits, so
:func:`render_template` is a plain call in plain and async views alike. Only
context processors may wait: those written ``async def`` are awaited by
:func:`render_template_async`.

Jinja itself is imported with the first template: an application that has none
starts without it.
"""

from __future__ import annotations

import os
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from .context import current_context, g, request, session
from .helpers import get_flashed_messages, url_for
from .loops import process_loop
from .workers import Desk

if TYPE_CHECKING:
    import jinja2

    from .app import Flask
    from .calling import Calling


def new_environment(app: Flask) -> jinja2.Environment:
    """Return the Jinja environment of an application."""
    import jinja2

    loader = app.create_jinja_loader()
    if isinstance(loader, Coroutine):
        waiting = loader
        loader = Desk().wait_for(lambda: waiting, process_loop())
    environment = jinja2.Environment(loader=loader, **app.jinja_options)
    environment.globals.update(
        url_for=url_for, get_flashed_messages=get_flashed_messages
    )
    return environment


def folder_loader(app: Flask) -> jinja2.BaseLoader:
    """Return what loads templates from the application's folder ``templates``."""
    import jinja2

    return jinja2.FileSystemLoader(os.path.join(app.root_path, "templates"))


def default_context_processor() -> dict[str, Any]:
    """Return what every template has at hand: ``request``, ``session`` and ``g``.

    They are the proxies, so that a template which does not use the session
    does not open it.
    """
    return {"request": request, "session": session, "g": g}


async def update_context(ctx: Calling, context: dict[str, Any]) -> None:
    """Add to a template context what the application's processors return."""
    for processor in ctx.app.template_context_processors:
        if processor is default_context_processor:
            context.update(processor())
        else:
            context.update(await ctx.call(processor))


def update_context_now(ctx: Calling, context: dict[str, Any]) -> None:
    """Do the same in the middle of plain code."""
    for processor in ctx.app.template_context_processors:
        if processor is default_context_processor:
            context.update(processor())
        else:
            context.update(ctx.call_now(processor))


def _environment(app: Flask) -> jinja2.Environment:
    environment = app.jinja_env
    if "auto_reload" not in app.jinja_options:
        environment.auto_reload = app.debug
    return environment


def _prepare(context: dict[str, Any]) -> jinja2.Environment:
    ctx: Any = current_context("render_template")
    if ctx.app.stages.updates_templates:
        ctx.call_now(ctx.app.update_template_context, context)
    else:
        update_context_now(ctx, context)
    return _environment(ctx.app)


async def _prepare_async(context: dict[str, Any]) -> jinja2.Environment:
    ctx: Any = current_context("render_template_async")
    if ctx.app.stages.updates_templates:
        await ctx.awaited(ctx.call(ctx.app.update_template_context, (context,)))
    else:
        await ctx.awaited(update_context(ctx, context))
    return _environment(ctx.app)


def render_template(template_name: str, **context: Any) -> str:
    """Render a file of the template folder.

    :param template_name: its path below the folder.
    :param context: what the template has at hand; a context processor that
        returns the same name wins, as in 0.1.
    :raises jinja2.TemplateNotFound: when there is no such file.
    :raises RuntimeError: in an async view, if a context processor is async;
        use :func:`render_template_async` there.
    """
    return _prepare(context).get_template(template_name).render(context)


def render_template_string(source: str, **context: Any) -> str:
    """Render a template given as text. See :func:`render_template`."""
    return _prepare(context).from_string(source).render(context)


async def render_template_async(template_name: str, **context: Any) -> str:
    """Render a file of the template folder, awaiting async context processors.

    Plain processors run in the request's worker thread meanwhile.
    """
    environment = await _prepare_async(context)
    return environment.get_template(template_name).render(context)


async def render_template_string_async(source: str, **context: Any) -> str:
    """Render a template given as text, awaiting async context processors."""
    environment = await _prepare_async(context)
    return environment.from_string(source).render(context)
