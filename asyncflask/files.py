"""Open files as the bodies of responses, and reading them.

On Linux, what the memory holds already is read at once; a thread is asked only
where a disk has to be waited for.
"""

from __future__ import annotations

import os
from io import FileIO
from typing import IO, NamedTuple

#: makes preadv(2) fail rather than wait
_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)


class FileBody(NamedTuple):
    """A body that is an open file, from where it stands.

    :ivar file: the file; closed when it has been sent.
    :ivar length: how many bytes to send.
    """

    file: IO[bytes]
    length: int

    @property
    def is_whole(self) -> bool:
        """True if the file ends where the body does."""
        try:
            size = os.fstat(self.file.fileno()).st_size
        except OSError:  # it is none of the operating system's
            return False

        return self.file.tell() + self.length == size

    def read(self) -> bytes:
        """Return all of it, and close the file.

        :raises RuntimeError: when the file has become shorter meanwhile.
        """
        with self.file:
            data = self.file.read(self.length)
        if len(data) < self.length:
            raise lost(self.file, self.length - len(data))

        return data

    def read_at_once(self) -> bytes | None:
        """Return all of it if it is in memory; None, and nothing read, otherwise."""
        data = read_cached(self.file, self.length)
        if data is None or len(data) == self.length:
            return data

        self.file.seek(-len(data), os.SEEK_CUR)
        return None

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def lost(file: IO[bytes], count: int) -> RuntimeError:
    """Return the error for a file that has become shorter while it was sent."""
    return RuntimeError(f"{file.name!r} lost {count} bytes while it was sent")


def read_cached(file: IO[bytes], size: int) -> bytes | None:
    """Return the next bytes of a file if they are in memory, and step behind them.

    None if a disk would have to be waited for, or nobody can tell: elsewhere than
    on Linux, on some file systems, and for files that are not read directly.
    Fewer bytes than asked for do not mean that the file ends there.
    """
    if _NOWAIT is None or type(file) is not FileIO:
        return None

    buffer = bytearray(size)
    try:
        count = os.preadv(file.fileno(), [buffer], -1, _NOWAIT)
    except OSError:
        return None

    return bytes(buffer) if count == size else bytes(memoryview(buffer)[:count])
