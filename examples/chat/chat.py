"""A chat room: what async is for.

Everybody in the room holds one request open, ``GET /events``, and waits on it
for what the others say. A thread for each of them would be a stack for each of
them; as async generators, a thousand listeners are a thousand small objects on
one event loop. All views here are ``async def``, so no request takes a thread.

Run it from its folder, and open it in two windows::

    uvicorn chat:app --timeout-graceful-shutdown 2      # or: python chat.py

A listener never ends by itself; the option says how long Ctrl-C waits for one.

The room lives in the memory of one process. Only its event loop touches it, and
there is no ``await`` between looking and changing, so it needs no locks. Several
processes would need something between them, such as a message broker.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from asyncflask import Flask, Response, abort, render_template, request, session

app = Flask(__name__)
app.secret_key = os.environ.get("CHAT_SECRET_KEY", "only for development")

#: events that may wait for one listener, before it is sent away as too slow
QUEUE_SIZE = 100
#: messages that are kept for those who come, or come back
HISTORY_SIZE = 50
#: seconds of silence before a sign of life; proxies cut what seems dead
HEARTBEAT = 20
#: characters of a name, and of a message
MAX_NAME, MAX_TEXT = 30, 500


# ---------------------------------------------------------------------- the room


class Event(NamedTuple):
    """Something that a listener is told."""

    kind: str
    data: Any
    #: the number of a message; other events have none
    number: int | None = None

    def encode(self) -> str:
        """Return the event as server-sent events are written (WHATWG HTML, 9.2)."""
        number = "" if self.number is None else f"id: {self.number}\n"
        return f"{number}event: {self.kind}\ndata: {json.dumps(self.data)}\n\n"


class Listener:
    """The queue between the room and one who listens.

    It is bounded, because a listener on a bad line would otherwise fill the
    memory with what it has not fetched.
    """

    def __init__(self) -> None:
        self._into: MemoryObjectSendStream[Event]
        self._out: MemoryObjectReceiveStream[Event]
        self._into, self._out = anyio.create_memory_object_stream[Event](QUEUE_SIZE)

    def tell(self, event: Event) -> bool:
        """Put an event into the queue; False if it is full."""
        try:
            self._into.send_nowait(event)
        except anyio.WouldBlock:
            return False
        return True

    def send_away(self) -> None:
        """End the stream once the queue is empty; a browser soon comes back."""
        self._into.close()

    def close(self) -> None:
        """Forget the queue."""
        self._into.close()
        self._out.close()

    async def next_event(self) -> Event | None:
        """Wait for an event; None after some silence.

        :raises anyio.EndOfStream: when the listener has been sent away.
        """
        with anyio.move_on_after(HEARTBEAT):
            return await self._out.receive()

        return None


@dataclass
class Room:
    """Who listens, and what was said last."""

    listeners: set[Listener] = field(default_factory=set)
    history: deque[Event] = field(default_factory=lambda: deque(maxlen=HISTORY_SIZE))
    said: int = 0

    def enter(self, seen: int) -> Listener:
        """Let a listener in, and tell it what it has missed.

        If that is more than its queue holds, it is sent away with the first
        part, and comes back for the rest.

        :param seen: the number of the last message that it knows.
        """
        listener = Listener()
        for event in self.history:
            if event.number is not None and event.number > seen:
                listener.tell(event)
        self.listeners.add(listener)
        self.count_heads()
        return listener

    def leave(self, listener: Listener) -> None:
        """Let a listener go, for whatever reason it goes."""
        listener.close()
        self.listeners.discard(listener)
        self.count_heads()

    def say(self, name: str, text: str) -> None:
        """Tell everybody, and keep it for those who come later."""
        self.said += 1
        event = Event("message", {"name": name, "text": text}, self.said)
        self.history.append(event)
        self.tell_all(event)

    def count_heads(self) -> None:
        """Tell everybody how many they are."""
        self.tell_all(Event("listeners", len(self.listeners)))

    def tell_all(self, event: Event) -> None:
        """Put an event into all queues, and send away whose queue is full."""
        for listener in [one for one in self.listeners if not one.tell(event)]:
            self.listeners.discard(listener)
            listener.send_away()


room = Room()


# ------------------------------------------------------------------------- views


@app.route("/")
async def show_room() -> str:
    """Show the room; rendering never waits, so it needs no ``await``."""
    return render_template(
        "room.html", name=session.get("name", ""), max_name=MAX_NAME, max_text=MAX_TEXT
    )


@app.route("/say", methods=["POST"])
async def say() -> tuple[str, int]:
    """Take a message; its author hears it over the events, like everybody."""
    name, text = request.form["name"].strip(), request.form["text"].strip()
    if not 1 <= len(name) <= MAX_NAME:
        abort(400, f"A name has 1 to {MAX_NAME} characters.")

    if not 1 <= len(text) <= MAX_TEXT:
        abort(400, f"A message has 1 to {MAX_TEXT} characters.")

    session["name"] = name
    room.say(name, text)
    return "", 204


@app.route("/events")
async def events() -> Response:
    """Stream what happens, for as long as the client listens.

    A browser that lost its connection says by itself which message it saw last.
    """
    seen = request.headers.get("Last-Event-ID", 0, type=int)
    return Response(
        stream_events(seen),
        mimetype="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def stream_events(seen: int) -> AsyncIterator[str]:
    """Enter the room, pass on what is heard there, and leave in any case.

    ``finally`` runs when the client hangs up, when it was too slow, and when
    the server stops. Nothing before the first ``yield`` runs unless somebody
    really fetches the stream, so nobody enters who could not leave.
    """
    listener = room.enter(seen)
    try:
        while True:
            event = await listener.next_event()
            yield ": still here\n\n" if event is None else event.encode()
    except anyio.EndOfStream:
        pass
    finally:
        room.leave(listener)


@app.route("/count")
async def count() -> dict[str, int]:
    """Say how many listen."""
    return {"listeners": len(room.listeners)}


if __name__ == "__main__":
    app.run(timeout_graceful_shutdown=2)
