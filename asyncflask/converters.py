"""Converters: between a part of a path and a value for the view.

Each knows what its part looks like, turns the text into a value, and a value
back into text. A rule names one: ``<int:id>``.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

if TYPE_CHECKING:
    from .routing import Map

#: what may stand unquoted in a path (RFC 3986, section 3.3)
PATH_SAFE = "!$&'()*+,/:;=@"
_SEGMENT_SAFE = PATH_SAFE.replace("/", "")


class ValidationError(ValueError):
    """Raised by a converter's ``to_python``: this value is not for this rule."""


class BaseConverter:
    """Turns a part of a path into a value for the view, and back.

    Subclass it, and register the subclass before the first rule that uses
    it: ``app.url_map.converters["list"] = ListConverter``. Arguments written
    in the rule, ``<list(";"):items>``, go to ``__init__`` behind the map.
    """

    #: what the part must look like, as a regular expression without groups
    #: that capture
    regex: str = "[^/]+"
    #: lower is tried first among rules that could all match
    weight: int = 80
    #: whether the part may hold no slash; worked out from the regex
    part_isolating: bool = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "regex" in cls.__dict__ and "part_isolating" not in cls.__dict__:
            cls.part_isolating = "/" not in cls.regex.replace("[^/]", "")

    def __init__(self, map: Map, *args: Any, **kwargs: Any) -> None:
        self.map = map

    def parser(self) -> Callable[[str], Sequence[Any]]:
        """Return what turns a whole segment of a path into a tuple of its value.

        It raises ``ValueError`` for text that is not for this converter. Override
        it where something is quicker than the regex and :meth:`to_python`.
        """
        fullmatch = re.compile(self.regex, re.DOTALL).fullmatch
        to_python = self.to_python

        def parse(text: str) -> Sequence[Any]:
            if fullmatch(text) is None:
                raise ValidationError(text)

            return (to_python(text),)

        return parse

    def to_python(self, value: str) -> Any:
        """Return the value for the view.

        :raises ValidationError: (or any ``ValueError``) to let the next rule try.
        """
        return value

    def to_url(self, value: Any) -> str:
        """Return the part of the URL for a value, percent-encoded."""
        text = str(value)
        is_plain = text.isascii() and text.isalnum()
        return text if is_plain else quote(text, safe=_SEGMENT_SAFE)


class UnicodeConverter(BaseConverter):
    """``<name>`` or ``<string:name>``: text without a slash, the default.

    :param minlength: at least so many characters.
    :param maxlength: at most so many.
    :param length: exactly so many.
    """

    weight = 100

    def __init__(
        self,
        map: Map,
        minlength: int = 1,
        maxlength: int | None = None,
        length: int | None = None,
    ) -> None:
        super().__init__(map)
        if min(int(number or 0) for number in (minlength, maxlength, length)) < 0:
            raise ValueError("a length is not negative")

        upper = "" if maxlength is None else str(int(maxlength))
        span = f"{int(minlength)},{upper}" if length is None else str(int(length))
        self.regex = f"[^/]{{{span}}}"
        self.is_open = span == "1,"
        if not self.is_open:
            self.weight = 90

    def parser(self) -> Callable[[str], Sequence[Any]]:
        """Return the usual, or what takes any text when there are no limits."""
        if type(self) is UnicodeConverter and self.is_open:
            return _parse_text

        return super().parser()


def _parse_text(text: str) -> tuple[str]:
    if not text:
        raise ValidationError(text)

    return (text,)


class PathConverter(BaseConverter):
    """``<path:name>``: text that may hold slashes, but not start with one."""

    regex = "[^/].*?"
    weight = 200
    part_isolating = False

    def to_url(self, value: Any) -> str:
        """Return the path, percent-encoded, its slashes left standing."""
        return quote(str(value), safe=PATH_SAFE)


class RestConverter(BaseConverter):
    """Whatever is left of a path, for what is mounted there; tried last of all."""

    regex = ".*"
    weight = 1000
    part_isolating = False


class AnyConverter(BaseConverter):
    """``<any(about, help):page>``: one of the words listed.

    :param items: the words.
    """

    weight = 10

    def __init__(self, map: Map, *items: str) -> None:
        super().__init__(map)
        if not items:
            raise ValueError("it lists no words")

        self.items = {str(item) for item in items}
        self.regex = "(?:{})".format("|".join(_escaped(self.items)))
        self.part_isolating = not any("/" in item for item in self.items)

    def to_url(self, value: Any) -> str:
        """Return the word.

        :raises ValueError: when it is not one of those listed.
        """
        if str(value) not in self.items:
            raise ValueError(
                f"{value!r} is none of {sorted(self.items)}, the words of the rule."
            )
        return super().to_url(value)


def _escaped(items: Iterable[str]) -> list[str]:
    """Return the words escaped for a regular expression, longest first."""
    return [re.escape(item) for item in sorted(items, key=lambda i: (-len(i), i))]


class NumberConverter(BaseConverter):
    """What ``int`` and ``float`` have in common.

    :param min: refuse smaller numbers.
    :param max: refuse bigger ones.
    :param signed: allow a minus sign.
    """

    unsigned_regex: ClassVar[str]
    convert: Callable[[str], Any]

    def __init__(
        self, map: Map, min: Any = None, max: Any = None, signed: bool = False
    ) -> None:
        super().__init__(map)
        if isinstance(min, str) or isinstance(max, str):
            raise TypeError("min and max are numbers")

        self.min = min
        self.max = max
        self.regex = f"-?{self.unsigned_regex}" if signed else self.unsigned_regex
        self.is_bounded = min is not None or max is not None

    def to_python(self, value: str) -> Any:
        """Return the number, unless it is out of bounds."""
        number = self.convert(value)
        if self.min is not None and number < self.min:
            raise ValidationError(f"{number} is below {self.min}")
        if self.max is not None and number > self.max:
            raise ValidationError(f"{number} is above {self.max}")

        return number

    def to_url(self, value: Any) -> str:
        """Return the number in digits."""
        return str(self.convert(value))


class IntegerConverter(NumberConverter):
    """``<int:name>``: a whole number, unsigned unless ``signed=True``.

    :param fixed_digits: exactly so many digits, zeros in front included.
    :param min: refuse smaller numbers.
    :param max: refuse bigger ones.
    :param signed: allow a minus sign.
    """

    unsigned_regex = "[0-9]+"
    weight = 30
    convert = int

    def __init__(
        self,
        map: Map,
        fixed_digits: int = 0,
        min: int | None = None,
        max: int | None = None,
        signed: bool = False,
    ) -> None:
        super().__init__(map, min, max, signed)
        self.fixed_digits = int(fixed_digits)
        self.is_open = not (signed or fixed_digits or self.is_bounded)

    def parser(self) -> Callable[[str], Sequence[Any]]:
        """Return the usual, or what takes any digits when there are no limits."""
        if type(self) is IntegerConverter and self.is_open:
            return _parse_digits

        return super().parser()

    def to_python(self, value: str) -> Any:
        """Return the number; of the wrong number of digits, it is refused."""
        if self.fixed_digits and len(value.lstrip("-")) != self.fixed_digits:
            raise ValidationError(f"{value} has not {self.fixed_digits} digits")

        return super().to_python(value)

    def to_url(self, value: Any) -> str:
        """Return the number, filled up with zeros to its fixed length."""
        text = str(int(value))
        if not self.fixed_digits:
            return text

        return text.zfill(self.fixed_digits + text.startswith("-"))


def _parse_digits(text: str) -> tuple[int]:
    if text.isascii() and text.isdecimal():
        return (int(text),)

    raise ValidationError(text)


class FloatConverter(NumberConverter):
    """``<float:name>``: a number with a decimal point.

    :param min: refuse smaller numbers.
    :param max: refuse bigger ones.
    :param signed: allow a minus sign.
    """

    unsigned_regex = r"[0-9]+\.[0-9]+"
    weight = 40
    convert = float

    def to_python(self, value: str) -> Any:
        """Return the number; with so many digits that it is none, it is refused."""
        return _finite(super().to_python(value))

    def to_url(self, value: Any) -> str:
        """Return the number with a decimal point and never an exponent.

        :raises ValueError: when it is infinite or no number.
        """
        text = format(Decimal(repr(_finite(float(value)))), "f")
        return text if "." in text else f"{text}.0"


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValidationError(f"{number} cannot stand in a URL")

    return number


class UUIDConverter(BaseConverter):
    """``<uuid:name>``: a UUID in its canonical text form (RFC 9562)."""

    regex = "[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}"
    weight = 20

    def to_python(self, value: str) -> Any:
        """Return a :class:`uuid.UUID`."""
        return uuid.UUID(value)


#: the converters that every map starts with
DEFAULT_CONVERTERS: Mapping[str, type[BaseConverter]] = {
    "default": UnicodeConverter,
    "string": UnicodeConverter,
    "any": AnyConverter,
    "path": PathConverter,
    "int": IntegerConverter,
    "float": FloatConverter,
    "uuid": UUIDConverter,
    "_rest": RestConverter,
}
