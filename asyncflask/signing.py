"""Text that a browser keeps and cannot change: what sessions are made of.

The format is that of itsdangerous' ``URLSafeTimedSerializer`` with Flask's
settings: JSON with tags for a few more types, compressed where that is
shorter, then a time stamp and a HMAC-SHA1 (RFC 2104), each part in base64 for
URLs without padding and a dot in between. It is written out here for this one
purpose because it is done for every request: the key is derived once, by
itsdangerous itself, and no choice is left to be made for each text.

Signatures are compared as text. So there is exactly one text for each value
and moment; decoding leniently first would accept many.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import time
import uuid
import zlib
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from datetime import datetime
from typing import Any

from itsdangerous import BadPayload, BadSignature, SignatureExpired, TimestampSigner
from markupsafe import Markup

from .dates import http_date, parse_http_date
from .json import default, ready_encoder

#: the salt that Flask signs sessions with
SALT = "cookie-session"
#: JSON of an object that is no longer than this cannot get shorter by deflating
_INCOMPRESSIBLE = 15
_FOR_URLS = bytes.maketrans(b"+/", b"-_")
_FROM_URLS = bytes.maketrans(b"-_", b"+/")


# --------------------------------------------------------------- tagged JSON


_AS_IT_IS = frozenset((type(None), bool, int, float, str))


def _tag(value: Any) -> Any:
    """Return a value in a form that JSON can carry and :func:`_untag` restore."""
    if type(value) in _AS_IT_IS:
        return value

    if isinstance(value, dict):
        tagged = {key: _tag(item) for key, item in value.items()}
        if len(tagged) == 1 and next(iter(tagged)) in _UNTAG:
            key = next(iter(tagged))
            return {" di": {f"{key}__": tagged[key]}}
        return tagged

    if isinstance(value, list):
        return [_tag(item) for item in value]

    for tag, (types, encode, _) in _TAGS.items():
        if isinstance(value, types):
            return {tag: encode(value)}

    if hasattr(value, "__html__"):
        return {" m": str(value.__html__())}

    if isinstance(value, (str, int, float)):
        return value

    try:
        return _tag(default(value))
    except TypeError:
        raise TypeError(
            f"The session cannot keep {value!r}, a {type(value).__name__}. It takes"
            " what JSON has, and tuple, bytes, Markup, UUID and datetime; store an id."
        ) from None


def _untag(value: dict[str, Any]) -> Any:
    """Undo :func:`_tag` for one object, innermost first."""
    if len(value) != 1:
        return value

    tag, item = next(iter(value.items()))
    decode = _UNTAG.get(tag)
    return value if decode is None else decode(item)


def _untag_dict(value: dict[str, Any]) -> dict[str, Any]:
    key, item = next(iter(value.items()))
    return {key[:-2]: item}


#: each tag with the types it stands for, how they go in, and how they come out
_TAGS: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]] = {
    " t": (tuple, lambda v: [_tag(item) for item in v], tuple),
    " b": (bytes, lambda v: base64.b64encode(v).decode("ascii"), base64.b64decode),
    " m": (Markup, lambda v: str(v.__html__()), Markup),
    " u": (uuid.UUID, lambda v: v.hex, uuid.UUID),
    " d": (datetime, http_date, parse_http_date),
}
_UNTAG = {tag: decode for tag, (_, _, decode) in _TAGS.items()}
_UNTAG[" di"] = _untag_dict


class TaggedJSON:
    """Flask's JSON for sessions: a few more types, each under a tag."""

    @staticmethod
    def dumps(value: Any) -> str:
        """Return the JSON text of a value.

        :raises TypeError: for a type that has no tag.
        """
        return _encode(_tag(value))

    @staticmethod
    def loads(text: str | bytes) -> Any:
        """Return the value of a JSON text, which has no blanks around it.

        :raises ValueError: when the text is not JSON.
        """
        text = text if isinstance(text, str) else text.decode()
        value, end = _decoder.raw_decode(text)
        if end != len(text):
            raise ValueError(f"{text[end:]!r} stands behind the JSON")

        return value


_encode = ready_encoder(json.JSONEncoder(separators=(",", ":"), sort_keys=True))
_decoder = json.JSONDecoder(object_hook=_untag)


# ------------------------------------------------------------------- signing


class Signer:
    """Signs values, and reads what it has signed.

    :param keys: the secret keys: the first one signs, all are accepted.
    """

    def __init__(self, keys: tuple[str | bytes, ...]) -> None:
        self._macs = [Mac(_derived(key)) for key in keys]

    def dumps(self, value: Any) -> str:
        """Return the signed text of a value.

        :raises TypeError: when it holds what :class:`TaggedJSON` cannot keep.
        """
        body = _encode(_tag(value)).encode()
        mark = b""
        if len(body) > _INCOMPRESSIBLE:
            deflated = zlib.compress(body)
            if len(deflated) < len(body) - 1:
                mark, body = b".", deflated
        signed = mark + _encoded(body) + _stamp(int(time.time()))
        return (signed + b"." + self._macs[0].of(signed)).decode("ascii")

    def loads(self, text: str, max_age: int) -> Any:
        """Return the value of a signed text.

        :param max_age: the most seconds since it was signed.
        :raises itsdangerous.BadData: when it is altered, too old or not ours.
        """
        signed, _, signature = text.encode().rpartition(b".")
        for mac in self._macs:
            if hmac.compare_digest(signature, mac.of(signed)):
                break
        else:
            raise BadSignature("the signature does not match")

        payload, _, stamp = signed.rpartition(b".")
        age = int(time.time()) - int.from_bytes(_decoded(stamp), "big")
        if not 0 <= age <= max_age:
            raise SignatureExpired(f"it was signed {age} seconds ago")

        try:
            if payload.startswith(b"."):
                return TaggedJSON.loads(zlib.decompress(_decoded(payload[1:])))
            return TaggedJSON.loads(_decoded(payload))
        except Exception as exc:  # signed with our key, but by something else
            raise BadPayload("it is no JSON with our tags", exc) from exc


@functools.lru_cache(maxsize=16)
def signer(*keys: str | bytes) -> Signer:
    """Return the signer for some keys, the newest first; made once."""
    return Signer(keys)


@functools.lru_cache(maxsize=1)
def _stamp(now: int) -> bytes:
    """Return the part that says when something was signed: once for each second."""
    return b"." + _encoded(now.to_bytes((now.bit_length() + 7) // 8, "big"))


def _derived(key: str | bytes) -> bytes:
    return TimestampSigner(
        key, SALT, key_derivation="hmac", digest_method=hashlib.sha1
    ).derive_key()


class Mac:
    """The message authentication codes of one key: HMAC-SHA1 (RFC 2104).

    What :mod:`hmac` does, less what it does again for each message.

    :param key: of 64 bytes at most.
    """

    def __init__(self, key: bytes) -> None:
        block = key.ljust(hashlib.sha1().block_size, b"\0")
        self._inner = hashlib.sha1(bytes(octet ^ 0x36 for octet in block))
        self._outer = hashlib.sha1(bytes(octet ^ 0x5C for octet in block))

    def of(self, text: bytes) -> bytes:
        """Return the code of a text, in base64 for URLs."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text)
        outer.update(inner.digest())
        return _encoded(outer.digest())


def _encoded(octets: bytes) -> bytes:
    return b2a_base64(octets, newline=False).translate(_FOR_URLS).rstrip(b"=")


def _decoded(text: bytes) -> bytes:
    return a2b_base64(text.translate(_FROM_URLS) + b"==")  # more does no harm
