"""Templates: where they are found, what they know, who may wait for what."""

from __future__ import annotations

import sys
import threading

import jinja2
import pytest

from asyncflask import (
    Flask,
    Markup,
    escape,
    render_template,
    render_template_async,
    render_template_string,
    render_template_string_async,
)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package and a module, each with a template, on the path."""
    for folder in (tmp_path / "pkg_with_templates", tmp_path):
        (folder / "templates").mkdir(parents=True)
        where = folder.name.replace(tmp_path.name, "module")
        (folder / "templates" / "where.html").write_text(f"{where} {{{{ x }}}}")
    (tmp_path / "pkg_with_templates" / "__init__.py").write_text("")
    (tmp_path / "module_with_templates.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("pkg_with_templates", "module_with_templates"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["pkg_with_templates", "module_with_templates"])
def test_templates_lie_beside_the_module_or_in_the_package(package, name):
    __import__(name)
    app = Flask(name)
    with app.test_request_context():
        found = render_template("where.html", x="<x>")
        assert found.endswith(" &lt;x&gt;")
        assert found.startswith(name.partition("_")[0][:3])
        with pytest.raises(jinja2.TemplateNotFound):
            render_template("missing.html")


def test_templates_are_read_again_in_debug_mode_only(package):
    import os

    __import__("module_with_templates")
    file = package / "templates" / "where.html"
    for debug, expected in ((False, "old"), (True, "new")):
        app = Flask("module_with_templates")
        app.debug = debug
        file.write_text("old")
        with app.test_request_context():
            assert render_template("where.html") == "old"
            file.write_text("new")
            os.utime(file, (1, 1))
            assert render_template("where.html") == expected


def test_everything_is_escaped_unless_the_options_say_otherwise():
    app = Flask(__name__)
    with app.test_request_context():
        assert render_template_string("{{ x }}", x="<b>") == "&lt;b&gt;"
        assert render_template_string("{{ x }}", x=Markup("<b>")) == "<b>"
        assert escape("<") == "&lt;"
    app = Flask(__name__)
    app.jinja_options = {"autoescape": False, "trim_blocks": True}
    with app.test_request_context():
        assert render_template_string("{{ x }}", x="<b>") == "<b>"


def test_filters_and_globals_can_be_added():
    app = Flask(__name__)
    app.jinja_env.filters["double"] = lambda text: text * 2
    with app.test_request_context():
        assert render_template_string("{{ 'a'|double }}") == "aa"


async def test_an_async_processor_is_awaited(app: Flask, client):
    @app.context_processor
    async def waiting():
        import anyio

        await anyio.lowlevel.checkpoint()
        return {"x": "waited"}

    @app.context_processor
    def plain():
        return {"y": threading.get_ident()}

    @app.before_request
    def remember():
        from asyncflask import g

        g.thread = threading.get_ident()

    @app.route("/async")
    async def view():
        from asyncflask import g

        text = await render_template_string_async("{{ x }} {{ y }}")
        same = text == f"waited {g.thread}"
        return f"{text.split()[0]} {same}"

    @app.route("/plain")
    def plain_view():
        return render_template_string("{{ x }}")

    @app.route("/refused")
    async def refused():
        with pytest.raises(RuntimeError, match="render_template_async"):
            render_template_string("{{ x }}")
        return "refused"

    got = await client.get("/async")
    assert got.text.startswith("waited")
    if client.driver != "loop":  # where the hook has no worker of its own
        assert got.text == "waited True"
        assert (await client.get("/plain")).text == "waited"
    assert (await client.get("/refused")).text == "refused"


async def test_plain_processors_run_in_the_requests_thread(app: Flask, client):
    threads = []
    app.before_request_funcs.append(lambda: threads.append(threading.get_ident()))

    @app.context_processor
    def plain():
        threads.append(threading.get_ident())
        return {"x": "from the worker"}

    @app.route("/")
    async def view():
        assert threading.get_ident() != threads[0]
        return render_template_string("{{ x }}")

    assert (await client.get("/")).text == "from the worker"
    assert len(threads) == 2
    assert len(set(threads)) == 1


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_update_template_context_may_be_overridden(driver, kind):
    from .conftest import Caller

    class Plain(Flask):
        def update_template_context(self, context):
            super().update_template_context(context)
            context["more"] = f"{context['x']} more"

    class Async(Flask):
        async def update_template_context(self, context):
            await super().update_template_context(context)
            context["more"] = f"{context['x']} more"

    app = {"plain": Plain, "async": Async}[kind](__name__)
    app.context_processor(lambda: {"x": "x"})

    @app.route("/async")
    async def view():
        return await render_template_string_async("{{ more }}")

    @app.route("/plain")
    def plain():
        return render_template_string("{{ more }}")

    client = Caller(app, driver)
    assert (await client.get("/async")).text == "x more"
    assert (await client.get("/plain")).text == "x more"
    app.workers.close()


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_create_jinja_loader_may_be_overridden(kind):
    loader = jinja2.DictLoader({"t": "from a dict"})

    class Plain(Flask):
        def create_jinja_loader(self):
            return loader

    class Async(Flask):
        async def create_jinja_loader(self):
            return loader

    app = {"plain": Plain, "async": Async}[kind](__name__)
    with app.test_request_context():
        assert render_template("t") == "from a dict"
        assert await render_template_async("t") == "from a dict"


def test_an_unused_session_is_not_opened_by_a_template():
    app = Flask(__name__)
    with app.test_request_context() as ctx:
        render_template_string("{{ request.path }}")
        assert not ctx.has_session
