"""Rules: ``/user/<int:id>`` taken apart, and put together as a URL."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import EllipsisType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from urllib.parse import quote

from .converters import PATH_SAFE, BaseConverter

if TYPE_CHECKING:
    from .routing import Map

VARIABLE = re.compile(
    r"<(?:(?P<converter>[a-zA-Z_]\w*)(?:\((?P<args>[^<>]*)\))?:)?"
    r"(?P<name>[a-zA-Z_]\w*)>"
)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_ARGUMENT = re.compile(
    r"""\s*(?:(?P<key>\w+)\s*=\s*)?(?P<value>"[^"]*"|'[^']*'|[^,]*?)\s*(?:,|$)"""
)


class Variable(NamedTuple):
    """A variable part of a rule, ready to convert both ways."""

    name: str
    converter: BaseConverter
    #: parts with the same key are the same node of the tree
    key: tuple[Any, ...]


#: a piece of a rule: literal text, or a variable
Part: TypeAlias = str | Variable


def parse_rule(rule: str) -> Iterator[str | tuple[str, str, str]]:
    """Iterate over a rule: literal text, or (converter, arguments, name).

    :raises ValueError: when a bracket is not part of a variable.
    """
    position = 0
    for found in VARIABLE.finditer(rule):
        if found.start() > position:
            yield _literal(rule, rule[position : found.start()])
        yield found["converter"] or "default", found["args"] or "", found["name"]
        position = found.end()
    if position < len(rule):
        yield _literal(rule, rule[position:])


def _literal(rule: str, text: str) -> str:
    if "<" in text or ">" in text:
        raise ValueError(
            f"The rule {rule!r} has a stray bracket in {text!r}. A variable part is"
            " written <name>, <converter:name> or <converter(arguments):name>."
        )
    return text


def parse_arguments(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a converter: ``'a, max=5'`` is ``('a',), {'max': 5}``.

    Numbers, quoted strings, True, False and None are read as in Python;
    anything else is a string.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for found in _ARGUMENT.finditer(text) if text.strip() else ():
        if found.start() == len(text) and found.start():
            break  # the empty match behind the last argument
        value = _argument(found["value"])
        if found["key"]:
            kwargs[found["key"]] = value
        else:
            args.append(value)

    return tuple(args), kwargs


def _argument(text: str) -> Any:
    if text[:1] in ("'", '"'):
        return text[1:-1]  # backslashes stand for themselves, as in a URL's regex

    if text in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[text]

    if _NUMBER.fullmatch(text):
        return float(text) if "." in text else int(text)

    return text


class Rule:
    """One URL pattern: which URLs it stands for, and what they lead to.

    :param string: the pattern; starts with a slash.
    :param defaults: values for the view that the URL does not say.
    :param subdomain: the part of the host in front of the server name; may
        hold variable parts.
    :param methods: the methods it answers to, HEAD added to GET; None for any.
    :param build_only: never match, only build.
    :param endpoint: the name that views and ``url_for`` know it by.
    :param strict_slashes: False to accept the URL with and without its slash.
    :param redirect_to: where to go instead of calling a view: a URL in which
        ``<name>`` stands for a value, or a function of the values.
    :param provide_automatic_options: answer OPTIONS without calling the view;
        None for what the application says.
    :param stream_body: leave the body unread, for the view to iterate over.
    :param max_content_length: the limit for the body in bytes, in place of the
        application's; None for none.
    :param body_timeout: seconds without any of the body, in place of the
        application's; None for no end.
    :param view_timeout: seconds until the response is there, in place of the
        application's; None for no end.
    :param cancel_on_disconnect: whether the view ends when the client leaves, in
        place of what the application says.
    """

    def __init__(
        self,
        string: str,
        defaults: Mapping[str, Any] | None = None,
        subdomain: str = "",
        methods: Iterable[str] | None = None,
        build_only: bool = False,
        endpoint: str | None = None,
        strict_slashes: bool | None = None,
        redirect_to: str | Callable[..., str] | None = None,
        provide_automatic_options: bool | None = None,
        stream_body: bool = False,
        max_content_length: int | EllipsisType | None = ...,
        body_timeout: float | EllipsisType | None = ...,
        view_timeout: float | EllipsisType | None = ...,
        cancel_on_disconnect: bool | EllipsisType = ...,
    ) -> None:
        if not string.startswith("/"):
            raise ValueError(
                f"The rule {string!r} does not start with a slash, and every path"
                f" does. Write {'/' + string!r}."
            )
        if isinstance(methods, str):
            raise TypeError(
                f"methods={methods!r} is a string; methods is a list of them."
                f" Write methods=[{methods!r}]."
            )
        self.rule = string
        self.defaults: dict[str, Any] = dict(defaults or ())
        self.subdomain = subdomain
        self.methods: frozenset[str] | None = (
            None if methods is None else _with_head(methods)
        )
        self.build_only = build_only
        self.endpoint: str = endpoint or ""
        self.strict_slashes = strict_slashes
        self.redirect_to = redirect_to
        #: True if a path that matches may have to go to another URL
        self.may_redirect: bool = redirect_to is not None
        self.provide_automatic_options = provide_automatic_options
        self.stream_body = stream_body
        self.max_content_length = max_content_length
        self.body_timeout = body_timeout
        self.view_timeout = view_timeout
        self.cancel_on_disconnect = cancel_on_disconnect
        #: what answers in place of the pipeline: a mounted application, or True
        #: for the static folder
        self.aside: Any = None
        #: literal texts and :class:`Variable` objects, once a map has it
        self.parts: list[Part] = []
        self.domain_parts: list[Part] = []

    def bind(self, map: Map) -> None:
        """Compile the rule with the converters of a map.

        :raises LookupError: when the map has no such converter.
        :raises ValueError: when a name stands in it twice, or a converter does not
            take its arguments.
        """
        if self.strict_slashes is None:
            self.strict_slashes = map.strict_slashes
        self.parts = [self._part(map, item) for item in parse_rule(self.rule)]
        self.domain_parts = [
            self._part(map, item) for item in parse_rule(self.subdomain)
        ]
        names = [variable.name for variable in self._variables()]
        if len(names) != len(set(names)):
            raise ValueError(
                f"The rule {self.rule!r} has the same name twice in {names};"
                " the view could get only one of them. Rename one."
            )
        #: every value that the view gets
        self.arguments: frozenset[str] = frozenset(names) | frozenset(self.defaults)
        self.names: tuple[str, ...] = tuple(
            v.name for v in self.parts if isinstance(v, Variable)
        )
        self._domain_form = Form(self.domain_parts)
        self._path_form = Form(self.parts)

    def _part(self, map: Map, item: str | tuple[str, str, str]) -> Part:
        if isinstance(item, str):
            return item

        converter, arguments, name = item
        cls = map.converters.get(converter)
        if cls is None:
            raise LookupError(
                f"The rule {self.rule!r} wants a converter {converter!r}; the map"
                f" has {sorted(map.converters)}. Register it before the rule:"
                f" app.url_map.converters[{converter!r}] = YourConverter."
            )
        args, kwargs = parse_arguments(arguments)
        key = (cls, repr(args), repr(sorted(kwargs.items())))
        try:
            made = cls(map, *args, **kwargs)
            re.compile(made.regex)
        except (TypeError, ValueError, OverflowError, re.error) as exc:
            raise ValueError(
                f"The rule {self.rule!r} gives the converter {converter!r} arguments"
                f" that it does not take, ({arguments}): {exc}."
            ) from exc
        return Variable(name, made, key)

    def _variables(self) -> Iterator[Variable]:
        for part in self.domain_parts + self.parts:
            if isinstance(part, Variable):
                yield part

    @property
    def is_static(self) -> bool:
        """True if the rule stands for exactly one path."""
        return not self.names

    @property
    def is_branch(self) -> bool:
        """True if the rule ends in a slash."""
        return self.rule.endswith("/")

    def allows(self, method: str) -> bool:
        """Say whether the rule answers to a method."""
        return self.methods is None or method in self.methods

    def values(self, texts: list[Any]) -> dict[str, Any]:
        """Return the values for the view: those in the path, and the defaults."""
        if len(texts) == 1:  # the usual case, quicker
            values = {self.names[0]: texts[0]}
        else:
            values = dict(zip(self.names, texts, strict=True))
        return self.defaults | values if self.defaults else values

    def missing(self, values: Mapping[str, Any]) -> list[str]:
        """Return the names that a URL needs and that have no value yet."""
        return sorted(self.arguments - self.defaults.keys() - values.keys())

    def suits(self, values: Mapping[str, Any], method: str | None) -> bool:
        """Say whether a URL for these values and this method can be built."""
        is_complete = self.arguments <= values.keys() or not self.missing(values)
        if not is_complete or (method is not None and not self.allows(method)):
            return False

        return not self.defaults or all(
            name not in values or values[name] == default
            for name, default in self.defaults.items()
        )

    def build(self, values: Mapping[str, Any]) -> tuple[str, str]:
        """Return subdomain and path for the values, percent-encoded."""
        domain = self._domain_form.fill(values) if self.domain_parts else ""
        return domain, self._path_form.fill(values)

    def __repr__(self) -> str:
        methods = (
            "any method" if self.methods is None else ", ".join(sorted(self.methods))
        )
        return f"<Rule {self.rule!r} ({methods}) -> {self.endpoint}>"


def _with_head(methods: Iterable[str]) -> frozenset[str]:
    named = frozenset(method.upper() for method in methods)
    return named | {"HEAD"} if "GET" in named else named


class Form:
    """The text of a rule, percent-encoded, with blanks for the values."""

    def __init__(self, parts: list[Part]) -> None:
        #: for each blank: the text before it, and what goes in there
        self._blanks: list[tuple[str, str, Callable[[Any], str]]] = []
        self._end = ""
        for part in parts:
            if isinstance(part, str):
                self._end += quote(part, safe=PATH_SAFE)
            else:
                self._blanks.append((self._end, part.name, part.converter.to_url))
                self._end = ""

    def fill(self, values: Mapping[str, Any]) -> str:
        """Return the text with the values, converted, in their places."""
        text = ""
        for before, name, to_url in self._blanks:
            text += before + to_url(values[name])
        return text + self._end
