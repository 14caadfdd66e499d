"""How Sphinx builds the documentation: ``nox -s docs``."""

from __future__ import annotations

import functools
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode
from sphinx.util.typing import stringify_annotation
from starlette.types import ASGIApp

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

# Of the attributes that are worked out once, autodoc shows the types only where they
# are made with the standard library's decorator; ours does the same, but quicker.
lazy: Any = ModuleType("asyncflask.lazy")
lazy.cached_property = functools.cached_property
sys.modules["asyncflask.lazy"] = lazy

project = "asyncflask"
author = "the asyncflask authors"
with (ROOT / "pyproject.toml").open("rb") as file:
    version = release = tomllib.load(file)["project"]["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
]
exclude_patterns = ["_build"]
nitpicky = True
#: names of others, and of type variables: there is nothing on these pages about them
nitpick_ignore_regex = [
    (
        "py:.*",
        r"(collections|contextvars|datetime|io|jinja2|os|threading|types|uuid|uvicorn)"
        r"(\..*)?",
    ),
    ("py:class", r"(asyncflask\.\w+\.)?(F|V|T|D|P|Lifespan)"),
    ("py:attr", "routing_exception"),
    ("py:class", r"Scope|ASGIApp|starlette\..*|asyncflask\.(forms|mounting)\.\w+"),
    ("py:class", r"asyncflask\.routing\.MapAdapter"),
]

myst_enable_extensions = ["colon_fence", "deflist", "attrs_block", "attrs_inline"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 120

html_theme = "furo"
html_title = "asyncflask"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#111",
        "color-brand-content": "#0b57a4",
        "color-api-name": "#111",
        "color-api-pre-name": "#555",
    },
    "dark_css_variables": {
        "color-brand-primary": "#f1f1f1",
        "color-brand-content": "#8ab8f2",
        "color-api-name": "#f1f1f1",
        "color-api-pre-name": "#aaa",
    },
}
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"


#: what has a name of its own within the package only
ALIASES = {"asyncflask.calling.Calling": "RequestContext"}
#: the pages on what these modules do
PAGES = {
    "asyncflask.calling": "sync-and-async",
    "asyncflask.moving": "sync-and-async",
    "asyncflask.pipeline": "lifecycle",
    "asyncflask.routing": "quickstart",
}


def find_by_last_name(
    app: Sphinx, env: Any, node: nodes.Element, content: nodes.TextElement
) -> nodes.Element | None:
    """Resolve a reference of a docstring, which uses the names of its module."""
    if node.get("refdomain") != "py":
        return None

    target, page = node["reftarget"], node["refdoc"]
    if target in PAGES:
        return make_refnode(app.builder, page, PAGES[target], "", content, target)

    objects = env.domains.python_domain.objects
    short = ALIASES.get(target, target).removeprefix("asyncflask.app.")
    for name, found in objects.items():
        if name == short or name.endswith(f".{short}"):
            where = found.docname, found.node_id
            return make_refnode(app.builder, page, *where, content, name)

    return None


#: how autodoc spells an ASGI application out
SPELT_OUT = stringify_annotation(ASGIApp, "smart")


def shorten(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, arguments: str, rv: str
) -> tuple[str | None, str | None]:
    """Name the type of ASGI applications in a signature."""
    return arguments and arguments.replace(SPELT_OUT, "ASGIApp"), rv


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-signature", shorten)
    app.connect("missing-reference", find_by_last_name)
