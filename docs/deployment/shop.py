"""A shop that can be deployed in every way that the guide shows."""

import asyncio
import os

from asyncflask import Flask, Response, request, session, url_for
from asyncflask.proxies import ProxyFix

app = Flask(__name__)
app.secret_key = os.environ["SHOP_SECRET_KEY"]
app.session_cookie_secure = True
app.trusted_hosts = ["shop.example", "localhost"]
app.asgi_app = ProxyFix(app.asgi_app, x_for=1, x_proto=1)
app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1)


@app.route("/")
def index():
    session["visits"] = session.get("visits", 0) + 1
    return {"visits": session["visits"], "process": os.getpid()}


@app.route("/where")
async def where():
    return {
        "client": request.remote_addr,
        "url": url_for("where", _external=True),
    }


@app.route("/upload", methods=["POST"])
def upload():
    return {"bytes": len(request.data)}


@app.route("/ticks")
async def ticks():
    async def lines():
        while True:
            yield "tick\n"
            await asyncio.sleep(0.1)

    return Response(
        lines(),
        mimetype="text/plain",
        headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"},
    )
