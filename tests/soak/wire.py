"""The client's side of HTTP/1.1, which knows whether a response was complete."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass, field
from typing import NamedTuple

#: bytes of a header at most
MOST_HEADER = 1 << 17


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int


class Refused(Exception):
    """The connection ended before any byte of a response."""


class Broken(Exception):
    """The connection ended in the middle of a response."""


class Malformed(Exception):
    """What came is no response."""


@dataclass
class Answer:
    """A response that is complete."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    def get(self, name: str) -> str:
        """Return a header field, or nothing."""
        return next((v for n, v in self.headers if n == name), "")


#: what reading and writing raises when the other side has closed or reset
LOST = (ConnectionError, asyncio.IncompleteReadError, BrokenPipeError, TimeoutError)


class Connection:
    """One connection, for one request after the other."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self.is_open = False
        #: how many responses it has brought
        self.answers = 0

    async def open(self) -> None:
        """Connect.

        :raises Refused: when nobody listens.
        """
        try:
            self.reader, self.writer = await asyncio.open_connection(
                *self._address, limit=MOST_HEADER
            )
        except OSError as exc:
            raise Refused(f"connect: {exc}") from None
        self.is_open, self.answers = True, 0

    async def send(self, data: bytes) -> None:
        """Send some bytes; whether they arrive shows when the response is read."""
        if self.writer.transport.is_closing():
            return

        try:
            self.writer.write(data)
            await self.writer.drain()
        except LOST:
            pass

    async def answer(self, method: str = "GET") -> Answer:
        """Read a response to its end.

        :raises Refused: when nothing comes before the end of the connection.
        :raises Broken: when it ends in the middle.
        :raises Malformed: when it is none.
        """
        answer = await self.start()
        try:
            async for chunk in self.chunks(answer, method):
                answer.body += chunk
        except LOST as exc:
            self.close()
            raise Broken(f"{answer.status} {answer.body[:40]!r}: {exc!r}") from None
        self.answers += 1
        if answer.get("connection") == "close":
            self.close()
        return answer

    async def start(self) -> Answer:
        """Read the header of a response."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError as exc:
            raise Malformed(str(exc)) from None
        except LOST as exc:
            self.close()
            if getattr(exc, "partial", b""):
                raise Broken(f"in the header: {exc!r}") from None
            raise Refused(repr(exc)) from None
        line, *fields = head.decode("latin-1")[:-4].split("\r\n")
        if not line.startswith("HTTP/1.1 ") or not line[9:12].isdigit():
            raise Malformed(repr(line))

        pairs = [name.partition(":") for name in fields]
        headers = [(name.lower(), value.strip()) for name, _, value in pairs]
        answer = Answer(int(line[9:12]), headers)
        return await self.start() if answer.status == 100 else answer

    async def chunks(self, answer: Answer, method: str = "GET"):
        """Read a body piece by piece, to the end that its header promises."""
        if method == "HEAD" or answer.status in (204, 304):
            return

        if answer.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                yield await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
        elif answer.get("content-length"):
            left = int(answer.get("content-length"))
            while left:
                chunk = await self.reader.read(min(left, 1 << 16))
                if not chunk:
                    raise asyncio.IncompleteReadError(b"", left)
                left -= len(chunk)
                yield chunk
        elif answer.status == 400 and answer.get("connection") == "close":
            yield await self.reader.read()  # uvicorn's own page, with h11
        else:
            raise Malformed(f"no end is announced: {answer.headers}")

    def close(self) -> None:
        """Close it in good order."""
        if self.is_open:
            self.is_open = False
            self.writer.close()

    def half_close(self) -> None:
        """Say that nothing more is sent, and go on listening."""
        try:
            self.writer.write_eof()
        except OSError:
            pass

    def reset(self) -> None:
        """Break it off, with a reset in place of a farewell."""
        if self.is_open:
            self.is_open = False
            raw = self.writer.get_extra_info("socket")
            linger = struct.pack("ii", 1, 0)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.writer.transport.abort()


def request(
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> bytes:
    """Return a request as bytes."""
    fields = {"Host": "localhost", **(headers or {})}
    if body is not None and "Transfer-Encoding" not in fields:
        fields.setdefault("Content-Length", str(len(body)))
    lines = [f"{method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def chunked(body: bytes, size: int) -> bytes:
    """Return a body in chunks of a size."""
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return framed + b"0\r\n\r\n"
