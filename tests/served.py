"""An application for real servers to serve: run as ``served:app``."""

from __future__ import annotations

import asyncio
import threading

from asyncflask import Flask, request
from asyncflask.environ import ENVIRON

app = Flask(__name__)
application = app  # the name that old deployment files use
closed: list[str] = []
loops: set[int] = set()
meeting = threading.Barrier(8)


@app.while_serving
async def pool():
    loops.add(id(asyncio.get_running_loop()))
    yield


@app.route("/protocol")
def protocol():
    return "wsgi" if ENVIRON in request.scope else "asgi"


@app.route("/loops")
async def count_loops():
    loops.add(id(asyncio.get_running_loop()))
    return str(len(loops))


@app.route("/threads")
def threads():
    return [thread.name for thread in threading.enumerate()]


@app.route("/meet")
def meet():
    meeting.wait(20)  # each in a thread of its own, until all are here
    return "met"


@app.route("/echo", methods=["POST"])
def echo():
    return request.data


@app.route("/echo-async", methods=["POST"])
async def echo_async():
    return request.data


@app.route("/endless")
def endless():
    def chunks():
        try:
            while True:
                yield b"x" * 65536
        finally:
            closed.append("plain")

    return chunks()


@app.route("/endless-async")
async def endless_async():
    try:
        while True:
            yield b"x" * 65536
    finally:
        closed.append("async")


@app.route("/closed")
async def what_was_closed():
    return closed
