"""What goes out as JSON, and how (RFC 8259).

Besides what the standard library knows, dates become HTTP dates, UUIDs and
decimals become strings, dataclasses become objects, and anything with an
``__html__`` method becomes its markup: the same choices as Flask's.
"""

from __future__ import annotations

import dataclasses
import json
import json.encoder
import uuid
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from .dates import http_date


def default(value: Any) -> Any:
    """Return what stands for a value that JSON itself has no form for.

    :raises TypeError: when nothing does.
    """
    if isinstance(value, date):
        return http_date(value)

    if isinstance(value, (Decimal, uuid.UUID)):
        return str(value)

    if isinstance(value, Mapping):
        return dict(value)

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)

    if hasattr(value, "__html__"):
        return str(value.__html__())

    raise TypeError(
        f"{value!r} is a {type(value).__name__}, which JSON has no form for."
        " Turn it into a dict, list, string or number first."
    )


def ready_encoder(encoder: json.JSONEncoder) -> Callable[[Any], str]:
    """Return what ``encoder.encode`` does, set up once and not for each value.

    Half of the time for a small value goes into that. Containers that hold
    themselves end in a ``RecursionError``.
    """
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # on an interpreter that has no such part in C
        return encoder.encode

    separators = encoder.key_separator, encoder.item_separator
    flags = encoder.sort_keys, encoder.skipkeys, encoder.allow_nan
    text = json.encoder.encode_basestring_ascii
    encode = make(None, encoder.default, text, None, *separators, *flags)
    return lambda value: "".join(encode(value, 0))


_encode = ready_encoder(json.JSONEncoder(separators=(",", ":"), default=default))


def dumps(value: Any) -> str:
    """Return a value as compact JSON text.

    :raises TypeError: for a type that JSON has no form for.
    """
    return _encode(value)


#: what ``json.loads`` does, less the look for encodings and blanks
_decode = json.JSONDecoder().raw_decode
#: RFC 8259, section 2: what may stand around a value
_BLANKS = " \t\n\r"


def loads(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    :raises ValueError: when the text is not JSON, or nested too deep to read.
    """
    try:
        try:
            string = (text if isinstance(text, str) else text.decode()).strip(_BLANKS)
            value, end = _decode(string)
            if end == len(string):
                return value
        except ValueError:
            pass
        # in an encoding of old (RFC 4627, section 3), or no JSON
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
