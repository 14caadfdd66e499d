"""The smallest application: a plain view and an async one, side by side.

Run it from its folder::

    uvicorn hello:app        # or: python hello.py
"""

from __future__ import annotations

import anyio

from asyncflask import Flask, escape, request

app = Flask(__name__)

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Hello</title>
<link rel="icon" href="data:,">
<style>
  body {{ display: grid; place-content: center; gap: 1rem; min-height: 90vh;
         padding: 0 1.25rem; font: 1.125rem/1.5 system-ui, sans-serif; }}
  h1 {{ margin: 0; font-size: clamp(2rem, 9vw, 4.5rem); line-height: 1.05;
       letter-spacing: -.04em; overflow-wrap: anywhere; }}
  p {{ margin: 0; }}
  a {{ color: inherit; text-underline-offset: .2em; }}
</style>
<h1>Hello, {name}!</h1>
<p>This view is plain. There is an <a href="/later">async one</a> as well.
"""


@app.route("/")
def hello() -> str:
    """Greet whoever the query names; runs in a worker thread."""
    # Without a template nothing is escaped by itself.
    return PAGE.format(name=escape(request.args.get("name") or "World"))


@app.route("/later")
async def later() -> dict[str, str]:
    """Wait a little, then greet; runs on the event loop, which serves others."""
    await anyio.sleep(0.1)
    return {"hello": request.args.get("name") or "World"}


if __name__ == "__main__":
    app.run()
