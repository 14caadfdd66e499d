"""The body of a request, from bytes to form fields and files.

A driver makes the right kind of body before the pipeline runs, feeds it the
chunks as they come in, and says when it was all. Limits are enforced on the
way, so a body that is too long is not read to its end. Nothing here waits:
any driver can feed it.

Multipart bodies (RFC 7578) are parsed while they arrive: fields end up in
memory, files in memory up to :data:`SPOOL_SIZE` and in an unnamed temporary
file beyond. Everything else is kept as it came, by the same rule.
"""

from __future__ import annotations

import functools
import io
import tempfile
from collections.abc import Callable
from typing import IO, Any, ClassVar, NamedTuple, NoReturn
from urllib.parse import unquote_to_bytes

from multipart import (
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

from .datastructures import FileStorage, mimetype_of
from .exceptions import BadRequest, RequestEntityTooLarge
from .lazy import cached_property

#: bytes of a file or a raw body that stay in memory
SPOOL_SIZE = 1 << 20


class Limits(NamedTuple):
    """How much of a body an application takes; None for no limit.

    :ivar content_length: bytes of the whole body.
    :ivar form_memory: bytes of all form fields that are no files.
    :ivar form_parts: fields and files.
    """

    content_length: int | None = None
    form_memory: int | None = None
    form_parts: int | None = None


#: limits by their numbers; an application has few
limits_of: Callable[..., Limits] = functools.lru_cache(maxsize=64)(Limits)


class Body:
    """A body with nothing in it, and what all kinds of body have in common."""

    #: True for the kinds that come from an HTML form
    is_form: ClassVar[bool] = False

    #: how many bytes have come
    received: int = 0
    #: True once there are files, to be closed in the end
    has_files: bool = False

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008
        self.limits = limits

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk.

        :raises RequestEntityTooLarge: when a limit is passed.
        :raises BadRequest: when it is malformed.
        """
        self.received += len(chunk)
        limit = self.limits.content_length
        if limit is not None and self.received > limit:
            raise too_large(limit)

        self.keep(chunk)

    def keep(self, chunk: bytes) -> None:
        """Do with a chunk what this kind of body does; :meth:`feed` has counted it."""

    def end(self) -> None:
        """Take note that this was all.

        :raises BadRequest: when something is missing.
        """

    @property
    def in_memory(self) -> bool:
        """True while feeding it a little more means no file access."""
        return self.received <= SPOOL_SIZE

    @property
    def data(self) -> bytes:
        """The body as it came; empty if it was taken apart as a form."""
        return b""

    @cached_property
    def stream(self) -> Any:
        """The body as an open file; empty if it was taken apart as a form."""
        return io.BytesIO(self.data)

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The form fields."""
        return []

    @property
    def files(self) -> list[tuple[str, FileStorage]]:
        """The uploaded files."""
        return []

    def close(self) -> None:
        """Close the files."""


class UnreadBody(Body):
    """The body of a rule with ``stream_body=True``: the view takes it in.

    :ivar stream: the chunks, to iterate over once.
    """

    stream: Any

    @property
    def data(self) -> NoReturn:
        """Nothing, as nobody has read it.

        :raises RuntimeError: always.
        """
        raise left_unread()

    @property
    def fields(self) -> NoReturn:
        """Nothing either; see :attr:`data`."""
        raise left_unread()

    @property
    def files(self) -> NoReturn:
        """Nothing either; see :attr:`data`."""
        raise left_unread()


def left_unread() -> RuntimeError:
    """Return the error for who asks for a body that the view is to take in."""
    return RuntimeError(
        "The body of this request was left unread, because its rule says"
        " stream_body=True. Iterate over request.stream, or drop the option."
    )


def too_large(limit: int) -> RequestEntityTooLarge:
    """Return the error for a body over the limit for all bodies."""
    return RequestEntityTooLarge(
        f"The request's body is over the limit of {limit} bytes."
    )


class RawBody(Body):
    """A body that is kept as it comes."""

    #: holds it once it is big
    _file: IO[bytes] | None = None

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._chunks: list[bytes] = []

    def keep(self, chunk: bytes) -> None:
        """Keep the chunk as it is."""
        if self._file is not None:
            self._file.write(chunk)
            return

        self._chunks.append(chunk)
        if self.received > SPOOL_SIZE:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
            self.has_files: bool = True
            self._file.writelines(self._chunks)
            self._chunks.clear()

    def end(self) -> None:
        """Go back to the start, for whoever reads it."""
        if self._file is not None:
            self._file.seek(0)

    @property
    def data(self) -> bytes:
        """The body as it came."""
        if self._file is not None:
            place = self._file.tell()
            self._file.seek(0)
            whole = self._file.read()
            self._file.seek(place)
            return whole

        if len(self._chunks) != 1:
            self._chunks[:] = [b"".join(self._chunks)]
        return self._chunks[0]

    @cached_property
    def stream(self) -> Any:
        """The body as an open file."""
        return io.BytesIO(self.data) if self._file is None else self._file

    def close(self) -> None:
        """Close the file that holds it, if it is so big that one does."""
        if self._file is not None:
            self._file.close()


class UrlencodedBody(RawBody):
    """An ordinary form: ``name=value&name=value``, percent-encoded."""

    is_form = True

    def keep(self, chunk: bytes) -> None:
        """Keep the chunk, within the limit for form fields."""
        limit = self.limits.form_memory
        if limit is not None and self.received > limit:
            raise RequestEntityTooLarge(
                f"The form's fields are over the limit of {limit} bytes."
            )
        super().keep(chunk)

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The form fields.

        :raises RequestEntityTooLarge: when there are too many.
        """
        data, limit = self.data, self.limits.form_parts
        if limit is not None and data.count(b"&") >= limit:
            raise _too_many_parts(self.limits)

        return parse_urlencoded(data)


_PERCENT = ord("%")


def parse_urlencoded(data: bytes) -> list[tuple[str, str]]:
    """Return names and values of a form or a query, in order.

    What is no UTF-8 is replaced; there are no malformed forms (WHATWG URL,
    section 5.1).
    """
    pairs = []
    for item in data.replace(b"+", b" ").split(b"&"):
        if item:
            name, _, value = item.partition(b"=")
            if _PERCENT in name:
                name = unquote_to_bytes(name)
            if _PERCENT in value:
                value = unquote_to_bytes(value)
            pair = name.decode("utf-8", "replace"), value.decode("utf-8", "replace")
            pairs.append(pair)
    return pairs


def _too_many_parts(limits: Limits) -> RequestEntityTooLarge:
    return RequestEntityTooLarge(
        f"The form has more than the {limits.form_parts} fields and files allowed."
    )


class MultipartBody(Body):
    """A form with files, taken apart while it arrives (RFC 7578)."""

    is_form = True

    def __init__(self, limits: Limits, boundary: str) -> None:
        super().__init__(limits)
        try:
            self._parser = PushMultipartParser(boundary)
        except MultipartError as exc:
            raise BadRequest(f"The form's boundary is malformed: {exc}.") from None
        self._segment: MultipartSegment | None = None
        self._sink: Any = None
        self._parts = 0
        self._memory = 0
        self._fields: list[tuple[str, str]] = []
        self._files: list[tuple[str, FileStorage]] = []

    def keep(self, chunk: bytes) -> None:
        """Parse the chunk."""
        if not chunk:  # which would mean the end to the parser
            return

        try:
            for event in self._parser.parse(chunk):
                if event is None:
                    self._finish()
                elif isinstance(event, MultipartSegment):
                    self._start(event)
                else:
                    self._write(event)
        except ParserLimitReached as exc:
            raise RequestEntityTooLarge(f"The form is over a limit: {exc}.") from None
        except MultipartError as exc:
            raise BadRequest(f"The form is malformed: {exc}.") from None

    def end(self) -> None:
        """Make sure that the last boundary has come."""
        try:
            self._parser.close()
        except MultipartError:
            raise BadRequest("The form is cut off before its last boundary.") from None

    def _start(self, segment: MultipartSegment) -> None:
        self._parts += 1
        limit = self.limits.form_parts
        if limit is not None and self._parts > limit:
            raise _too_many_parts(self.limits)

        if not segment.name:
            raise BadRequest("A part of the form has no name.")

        # The parser sees this only where a chunk happens to end within the line.
        if any("\n" in value for _, value in segment.headerlist):
            raise BadRequest("A part of the form has a stray line break in its header.")

        self._segment = segment
        if segment.filename is None:
            self._sink = bytearray()
            return

        self._sink = tempfile.SpooledTemporaryFile(max_size=SPOOL_SIZE)  # noqa: SIM115
        headers = dict(segment.headerlist)
        file = FileStorage(self._sink, segment.filename, segment.name, headers)
        self._files.append((segment.name, file))
        self.has_files = True

    def _write(self, data: bytes) -> None:
        if not isinstance(self._sink, bytearray):
            self._sink.write(data)
            return

        self._memory += len(data)
        limit = self.limits.form_memory
        if limit is not None and self._memory > limit:
            raise RequestEntityTooLarge(
                f"The form's fields are over the limit of {limit} bytes."
            )
        self._sink += data

    def _finish(self) -> None:
        segment, sink = self._segment, self._sink
        if segment is not None and isinstance(sink, bytearray):
            self._fields.append((segment.name or "", sink.decode("utf-8", "replace")))
        else:
            sink.seek(0)

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The form fields."""
        return self._fields

    @property
    def files(self) -> list[tuple[str, FileStorage]]:
        """The uploaded files."""
        return self._files

    def close(self) -> None:
        """Close the uploaded files."""
        for _, file in self._files:
            file.close()


def new_body(content_type: str, limits: Limits) -> Body:
    """Return the body that suits a content type, ready to be fed.

    :raises BadRequest: for a multipart form without a usable boundary.
    """
    mimetype = mimetype_of(content_type)
    if mimetype == "application/x-www-form-urlencoded":
        return UrlencodedBody(limits)

    if mimetype != "multipart/form-data":
        return RawBody(limits)

    boundary = parse_options_header(content_type)[1].get("boundary")
    if not boundary:
        raise BadRequest("The form's content type says no boundary between its parts.")

    return MultipartBody(limits, boundary)
