"""Rules to URLs and back.

A :class:`Rule` such as ``/user/<int:id>/`` is parsed and compiled once, when
it is added to a :class:`Map`. Matching and building then do no parsing.

How a path finds its rule
-------------------------
Segment by segment, through a tree::

    /user/<int:id>      /user/<name>/edit      /files/<path:name>

    (root) ── "user" ──┬── <int>     ◀ rule
           │           └── <default> ── "edit"  ◀ rule
           └─ "files" ──── tail: <path>         ◀ rule

At each node the literal segment is tried first (one dict look-up), then the
variable ones in order of their weight, then the tails: patterns that may
swallow slashes. If a way ends nowhere, the search goes one node back and
tries the next alternative. Therefore the most specific rule wins whatever
the order of registration, and a converter that refuses a value lets the next
rule try. Rules that start alike share their nodes, so the cost of a match
grows with the length of the path and not with the number of rules.

Most requests need no search at all: :meth:`Tree.find` goes straight down, and
looks the literal part of the path up at once. Only what it does not find is
searched for.

A rule reached for another method is remembered: if nothing else matches, the
answer is 405 with every method that would have been allowed (RFC 9110,
section 15.5.6), otherwise 404.

Slashes
-------
A rule that ends in a slash is a folder: asked for without the slash, it
redirects there (308, nothing of the query lost). A rule that does not is a
file: asked for with a slash, it is not found. ``strict_slashes=False``
accepts both for a rule.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from .converters import (
    DEFAULT_CONVERTERS,
    PATH_SAFE,
    BaseConverter,
    ValidationError,
)
from .exceptions import (
    BuildError,
    HTTPException,
    MethodNotAllowed,
    NotFound,
    RequestRedirect,
)
from .lazy import cached_property
from .rules import VARIABLE, Part, Rule, Variable
from .target import Target

#: ways to divide a text among the variables of a pattern that are tried at most
MOST_WAYS = 10_000_000
#: what some servers let through in a query, and no header field may hold
_UNSENDABLE = re.compile(r"[\x00-\x20\x7f]")

# ----------------------------------------------------------------- the tree


class SlashRequired(Exception):
    """The path names a folder, but has no slash at its end."""


class Place:
    """Where rules end: those of one place, by method; the first one added wins."""

    __slots__ = ("any_method", "by_method")

    def __init__(self) -> None:
        self.by_method: dict[str, Rule] = {}
        self.any_method: Rule | None = None

    def add(self, rule: Rule) -> None:
        """Add a rule for each of its methods."""
        if rule.methods is None:
            self.any_method = self.any_method or rule
        for method in rule.methods or ():
            self.by_method.setdefault(method, rule)


class Node(Place):
    """A place in the tree, and what may follow the segments that led here."""

    __slots__ = ("dynamic", "static", "tails")

    def __init__(self) -> None:
        super().__init__()
        self.static: dict[str, Node] = {}
        self.dynamic: list[Segment] = []
        self.tails: list[Tail] = []

    def child(self, parts: list[Part]) -> Node:
        """Return the node behind one segment; made when it is new."""
        if not any(isinstance(part, Variable) for part in parts):
            return self.static.setdefault("".join(map(str, parts)), Node())

        return _shared(self.dynamic, Segment(parts)).node


P = TypeVar("P", bound="Pattern")


def _shared(patterns: list[P], new: P) -> P:
    """Return the pattern of the list that is the same as a new one, or add it."""
    for pattern in patterns:
        if pattern.key == new.key:
            return pattern

    patterns.append(new)
    patterns.sort(key=lambda pattern: pattern.order)
    return new


class Pattern:
    """Variables with literal text around them, as one regular expression."""

    def __init__(self, parts: list[Part]) -> None:
        self.converters: list[BaseConverter] = [
            p.converter for p in parts if isinstance(p, Variable)
        ]
        #: how many values it gives
        self.count: int = len(self.converters)
        #: what two patterns that match the same have in common
        self.key: tuple[tuple[Any, ...] | str, ...] = tuple(
            p.key if isinstance(p, Variable) else p for p in parts
        )
        #: more literal text first, then the stricter converters; the rest only
        #: makes the order independent of registration
        self.order: tuple[int, int, str] = (
            -sum(len(part) for part in parts if isinstance(part, str)),
            max((converter.weight for converter in self.converters), default=0),
            repr(self.key),
        )
        groups = (
            f"({_uncaptured(p.converter.regex)})"
            if isinstance(p, Variable)
            else re.escape(p)
            for p in parts
        )
        self.fullmatch: Callable[[str], re.Match[str] | None] = re.compile(
            "".join(groups), re.DOTALL
        ).fullmatch
        #: characters of a text at most, so that no text takes long to be refused
        self.longest: float = _longest(parts)

    def parse(self, text: str) -> Sequence[Any]:
        """Return the values in a text.

        :raises ValueError: when it does not match, or a converter refuses its part.
        """
        found = self.fullmatch(text) if len(text) <= self.longest else None
        if found is None:
            raise ValidationError(text)

        return self.convert(found.groups())

    def convert(self, texts: Iterable[str]) -> list[Any]:
        """Return the values of the parts.

        :raises ValueError: when a converter refuses one.
        """
        pairs = zip(self.converters, texts, strict=True)
        return [converter.to_python(text) for converter, text in pairs]


def _longest(parts: list[Part]) -> float:
    """Return how long a text may be that is matched with a pattern.

    A variable that may hold what stands between it and the next one is tried at
    each length. With one of them that is nothing; with ``n`` of them, a text that is
    refused in the end is gone through in as many ways as it has places for ``n``.
    """
    places = [index for index, part in enumerate(parts) if isinstance(part, Variable)]
    loose = set()
    for left, right in itertools.pairwise(places):
        between = "".join(map(str, parts[left + 1 : right]))
        loose |= {n for n in (left, right) if _may_hold(parts[n], between)}
    if places and places[-1] + 1 < len(parts):
        loose |= {places[-1]} if _may_hold(parts[places[-1]], str(parts[-1])) else set()
    ways = MOST_WAYS * math.factorial(len(loose))
    return math.inf if len(loose) < 2 else ways ** (1 / len(loose))


def _may_hold(part: Any, text: str) -> bool:
    fullmatch = re.compile(part.converter.regex, re.DOTALL).fullmatch
    return any(fullmatch(around + text + around) for around in ("0", "a", text))


def _uncaptured(regex: str) -> str:
    # A capturing group inside a converter would shift the numbers of ours.
    if re.compile(regex).groups:
        raise ValueError(
            f"The converter's regex {regex!r} has a capturing group, which would"
            " be taken for the value. Write (?:…) instead of (…)."
        )
    return regex


class Segment(Pattern):
    """A pattern for one segment of a path, and the node behind it."""

    def __init__(self, parts: list[Part]) -> None:
        super().__init__(parts)
        self.node: Node = Node()
        if len(parts) == 1:  # the usual case; its converter may know a quicker way
            parser = self.converters[0].parser()
            setattr(self, "parse", parser)  # noqa: B010


class Tail(Pattern):
    """A pattern for the whole rest of a path, slashes included."""

    def __init__(self, parts: list[Part]) -> None:
        super().__init__(parts)
        #: the rules that end in a slash, and those that do not
        self.branch: Place = Place()
        self.file: Place = Place()


def _segments(rule: Rule) -> Iterator[list[Part]]:
    """Iterate over a rule split at its slashes.

    Behind a variable that may hold slashes, all to the end is one piece.
    """
    parts: list[Part] = [str(rule.parts[0])[1:], *rule.parts[1:]]
    current: list[Part] = []
    for index, part in enumerate(parts):
        if isinstance(part, Variable):
            current.append(part)
            if not part.converter.part_isolating:
                yield current + parts[index + 1 :]
                return
            continue

        first, *rest = part.split("/")
        if first:
            current.append(first)
        for text in rest:
            yield current
            current = [text] if text else []
    yield current


class Tree:
    """The rules of one domain."""

    def __init__(self) -> None:
        self.root: Node = Node()
        #: the places that a path without variables leads to
        self.literal: dict[str, Node] = {"": self.root}

    def add(self, rule: Rule) -> None:
        """Add a rule."""
        node, path = self.root, ""
        for segment in _segments(rule):
            if any(
                isinstance(p, Variable) and not p.converter.part_isolating
                for p in segment
            ):
                self._add_tail(node, segment, rule)
                return

            is_literal = node is self.literal.get(path)
            node = node.child(segment)
            path = f"{path}/{''.join(map(str, segment))}"
            if is_literal and not any(isinstance(p, Variable) for p in segment):
                self.literal[path] = node
        node.add(rule)

    def _add_tail(self, node: Node, segment: list[Part], rule: Rule) -> None:
        *parts, last = segment
        if isinstance(last, Variable):
            parts.append(last)
        elif last != "/":
            parts.append(last.removesuffix("/"))
        tail = _shared(node.tails, Tail(parts))
        (tail.branch if rule.is_branch else tail.file).add(rule)

    def find(self, path: str, method: str) -> tuple[Rule, dict[str, Any]] | None:
        """Return what :meth:`match` would, only sooner; None if a redirect is due.

        Most rules are there where the first alternative at each node leads to.

        :raises MethodNotAllowed: as :meth:`match` does.
        :raises NotFound: likewise.
        """
        values: list[Any] | None = None
        place: Place | None = self.literal.get(path)
        if place is None:
            values = []
            folder, slash, name = path.rpartition("/")
            known = self.literal.get(folder) if slash else None
            if known is None:
                place = self._place_behind(path, values)
            elif known.dynamic or known.tails:  # it has no literal child of that name
                place = _match_variable(known, name, values)
                place = place or _place_of_tail(known, name, values)
            elif known is self.root:
                raise NotFound()  # no rule starts like this
        rule = None if place is None else place.by_method.get(method)
        if rule is None:
            return self._search_for(path, method)

        if rule.may_redirect:
            return None

        return rule, rule.values(values) if values else rule.defaults.copy()

    def _search_for(self, path: str, method: str) -> tuple[Rule, dict[str, Any]] | None:
        if path[:1] != "/":  # there is more in it than a path
            return None

        try:
            found = self.match(path, method)
        except SlashRequired:
            return None

        return None if found[0].may_redirect else found

    def _place_behind(self, path: str, values: list[Any]) -> Place | None:
        """Return the first place behind a path, and add the values on the way."""
        node, segments = self.root, iter(path.split("/"))
        if next(segments):  # no slash in front
            return None

        for segment in segments:
            child = node.static.get(segment) or _match_variable(node, segment, values)
            if child is None:
                if node.tails:
                    rest = "/".join((segment, *segments))
                    return _place_of_tail(node, rest, values)

                if node is self.root and not node.dynamic:
                    raise NotFound()  # no rule starts like this

                return None

            node = child
        return node

    def match(self, path: str, method: str) -> tuple[Rule, dict[str, Any]]:
        """Return the rule for a path, and the values for the view.

        :raises SlashRequired: when only a slash at the end is missing.
        :raises MethodNotAllowed: when only the method is wrong.
        :raises NotFound: otherwise.
        """
        search = Search(path, method)
        rule = search.descend(self.root, 0) if path.startswith("/") else None
        if rule is None:
            raise search.failure()

        return rule, rule.values(search.values)


def _match_variable(node: Node, segment: str, values: list[Any]) -> Node | None:
    """Return the node behind the first pattern for a segment, and add its values."""
    for pattern in node.dynamic:
        try:
            values += pattern.parse(segment)
        except ValueError:
            continue
        return pattern.node

    return None


def _place_of_tail(node: Node, rest: str, values: list[Any]) -> Place | None:
    """Return the first place for the rest of a path, unless a slash is at its end."""
    for tail in node.tails if rest[-1:] != "/" else ():
        try:
            values += tail.parse(rest)
        except ValueError:
            continue
        return tail.file

    return None


def _unknown(path: str, method: str) -> None:
    """Find nothing, where path and method alone do not tell the rule."""


class Domain:
    """A subdomain that rules belong to, and those rules."""

    def __init__(self, rule: Rule) -> None:
        self.text: str = rule.subdomain
        self.tree: Tree = Tree()
        self._names = [p.name for p in rule.domain_parts if isinstance(p, Variable)]
        self._pattern = Pattern(rule.domain_parts)
        self.order: tuple[int, int, str] = self._pattern.order

    def parse(self, subdomain: str) -> dict[str, Any]:
        """Return the values in the name of a subdomain.

        :raises ValueError: when it is another one.
        """
        return dict(zip(self._names, self._pattern.parse(subdomain), strict=True))


class Search:
    """One path on its way down the tree."""

    __slots__ = ("allowed", "count", "method", "segments", "values")

    def __init__(self, path: str, method: str) -> None:
        self.segments: list[str] = path.split("/")[1:]
        self.count: int = len(self.segments)
        self.method: str = method
        #: the values on the way to the current node
        self.values: list[Any] = []
        #: the methods of rules that were reached in vain
        self.allowed: set[str] = set()

    def descend(self, node: Node, index: int) -> Rule | None:
        """Return the rule that the segments from ``index`` on lead to."""
        if index == self.count:
            return self.end(node)

        segment = self.segments[index]
        child = node.static.get(segment)
        if child is not None:
            rule = self.descend(child, index + 1)
            if rule is not None:
                return rule

        for pattern in node.dynamic:
            try:
                self.values += pattern.parse(segment)
            except ValueError:
                continue
            rule = self.descend(pattern.node, index + 1)
            if rule is not None:
                return rule

            del self.values[-pattern.count :]
        if node.tails:
            rest = "/".join(self.segments[index:])
            for tail in node.tails:
                rule = self.finish(tail, rest)
                if rule is not None:
                    return rule

        if segment == "" and index + 1 == self.count:
            return self.lenient(node)

        return None

    def end(self, node: Node) -> Rule | None:
        """Return the rule for a path that ends at a node."""
        rule = self.take(node)
        folder = node.static.get("") if rule is None else None
        return rule if folder is None else self.without_slash(folder)

    def finish(self, tail: Tail, rest: str) -> Rule | None:
        """Return the rule for a path whose rest a tail may take."""
        ends_in_slash = rest.endswith("/")
        ways = (
            [(rest[:-1], self.take, tail.branch), (rest, self.take, tail.file)]
            if ends_in_slash
            else [(rest, self.take, tail.file), (rest, self.without_slash, tail.branch)]
        )
        if ends_in_slash:
            ways.append((rest[:-1], self.lenient, tail.file))
        for text, take, place in ways:
            try:
                values = tail.parse(text)
            except ValueError:
                continue
            rule = take(place)
            if rule is not None:
                self.values += values
                return rule

        return None

    def take(self, place: Place) -> Rule | None:
        """Return the rule of a place for the method; remember those in vain."""
        rule = place.by_method.get(self.method) or place.any_method
        if rule is None:
            self.allowed.update(place.by_method)
        return rule

    def without_slash(self, place: Place) -> Rule | None:
        """Return the rule of a folder that was asked for without its slash.

        :raises SlashRequired: unless the rule takes that lightly.
        """
        rule = self.take(place)
        if rule is not None and rule.strict_slashes:
            raise SlashRequired

        return rule

    def lenient(self, place: Place) -> Rule | None:
        """Return the rule of a file that was asked for with a slash, if it takes
        that lightly."""
        lenient = [m for m, rule in place.by_method.items() if not rule.strict_slashes]
        rule = place.by_method.get(self.method) or place.any_method
        if rule is None:
            self.allowed.update(lenient)
            return None

        return None if rule.strict_slashes else rule

    def failure(self) -> HTTPException:
        """Return the error for a search that found nothing."""
        return MethodNotAllowed(allowed=self.allowed) if self.allowed else NotFound()


# ------------------------------------------------------------------ the map


class Map:
    """All rules of an application. Iterate over it, or print it, to see them.

    :param strict_slashes: what rules that do not say get.
    """

    def __init__(self, strict_slashes: bool = True) -> None:
        self.strict_slashes = strict_slashes
        #: converters by the name that rules use; add your own here
        self.converters: dict[str, type[BaseConverter]] = dict(DEFAULT_CONVERTERS)
        self._clear()

    def _clear(self) -> None:
        self._rules: list[Rule] = []
        self._by_endpoint: dict[str, list[Rule]] = {}
        self._tree = Tree()
        self._domains: list[Domain] = []
        #: True if any rule belongs to a subdomain
        self.has_subdomains: bool = False
        #: the endpoints with rules that leave a default out of the URL
        self._defaulted: dict[str, list[Rule]] = {}
        #: do what :meth:`MapAdapter.match_rule` would, or return None. The quick way:
        #: it knows only path and method, and neither hosts nor redirects. None
        #: means: go the other way.
        self.find: Callable[[str, str], tuple[Rule, dict[str, Any]] | None]
        self.find = self._tree.find

    def add(self, rule: Rule) -> None:
        """Add a rule and compile it. The change counts from the next match on.

        :raises LookupError: when it wants a converter that is not registered.
        :raises ValueError: when it is malformed.
        """
        rule.bind(self)
        if not rule.build_only:
            self._domain(rule).add(rule)
        self._rules.append(rule)
        self._by_endpoint.setdefault(rule.endpoint, []).append(rule)
        if rule.defaults:
            self._defaulted.setdefault(rule.endpoint, []).append(rule)
        if rule.endpoint in self._defaulted:
            for other in self._by_endpoint[rule.endpoint]:
                other.may_redirect = True

    def remove(self, rule: Rule) -> None:
        """Take a rule out again; the tree is built anew from the others."""
        others = [other for other in self._rules if other is not rule]
        self._clear()
        for other in others:
            self.add(other)

    def _domain(self, rule: Rule) -> Tree:
        if not rule.subdomain:
            return self._tree

        for domain in self._domains:
            if domain.text == rule.subdomain:
                return domain.tree

        domain = Domain(rule)
        self.find, self.has_subdomains = _unknown, True
        self._domains.append(domain)
        self._domains.sort(key=lambda domain: domain.order)
        return domain.tree

    def match(
        self, path: str, method: str, subdomain: str | None = ""
    ) -> tuple[Rule, dict[str, Any]]:
        """Return the rule for a path and method, and the values for the view.

        :param subdomain: None when the host is not one of ours.
        :raises SlashRequired: when only a slash at the end is missing.
        :raises MethodNotAllowed: when the path is known for other methods only.
        :raises NotFound: when it is not known.
        """
        if subdomain:
            return self._match_subdomain(path, method, subdomain)

        if subdomain is None:
            raise NotFound()

        return self._tree.match(path, method)

    def _match_subdomain(
        self, path: str, method: str, subdomain: str
    ) -> tuple[Rule, dict[str, Any]]:
        allowed: set[str] = set()
        for domain in self._domains:
            try:
                found = domain.parse(subdomain)
                rule, values = domain.tree.match(path, method)
            except MethodNotAllowed as exc:
                allowed.update(exc.allowed)
            except (ValueError, NotFound):
                continue
            else:
                return rule, {**found, **values}

        raise MethodNotAllowed(allowed=allowed) if allowed else NotFound()

    def preferred(self, rule: Rule, values: Mapping[str, Any]) -> Rule | None:
        """Return the rule of the same endpoint that says these values shorter.

        With ``/`` (``defaults={'page': 1}``) and ``/page/<int:page>`` on one
        endpoint, ``/page/1`` belongs at ``/``.
        """
        shorter = [
            other
            for other in self._defaulted.get(rule.endpoint, ())
            if len(other.defaults) > len(rule.defaults)
            and other.arguments == rule.arguments
            and other.methods == rule.methods
            and other.subdomain == rule.subdomain
            and not other.build_only
            and all(values[name] == value for name, value in other.defaults.items())
        ]
        return max(shorter, key=lambda other: len(other.defaults), default=None)

    def build(
        self, endpoint: str, values: Mapping[str, Any], method: str | None = None
    ) -> tuple[str, str]:
        """Return subdomain and path of the URL for an endpoint.

        Values that the rule has no place for become the query; those that are
        None are left out, and lists give several arguments.

        :param method: build for a rule that answers to this method.
        :raises BuildError: when no rule of the endpoint suits.
        """
        given = {name: value for name, value in values.items() if value is not None}
        rules = self._by_endpoint.get(endpoint, ())
        if len(rules) == 1 and rules[0].suits(given, method):
            rule = rules[0]
        else:
            rule = self._best_of(rules, endpoint, given, method)
        try:
            domain, path = rule.build(given)
        except (ValueError, TypeError, OverflowError) as exc:
            raise BuildError(endpoint, given, method, self._rules, str(exc)) from exc

        if given.keys() <= rule.arguments:
            return domain, path

        query = [
            (name, item)
            for name, value in given.items()
            if name not in rule.arguments
            for item in (value if isinstance(value, (list, tuple)) else [value])
            if item is not None
        ]
        return domain, f"{path}?{urlencode(query)}" if query else path

    def _best_of(
        self,
        rules: Iterable[Rule],
        endpoint: str,
        values: Mapping[str, Any],
        method: str | None,
    ) -> Rule:
        best: Rule | None = None
        for rule in rules:
            if rule.suits(values, method) and _better(rule, best):
                best = rule
        if best is None:
            raise BuildError(endpoint, values, method, self._rules)

        return best

    def iter_rules(self, endpoint: str | None = None) -> Iterator[Rule]:
        """Iterate over all rules, or those of an endpoint, as they were added."""
        if endpoint is None:
            return iter(list(self._rules))

        return iter(list(self._by_endpoint.get(endpoint, ())))

    def __iter__(self) -> Iterator[Rule]:
        return self.iter_rules()

    def __len__(self) -> int:
        return len(self._rules)

    def __str__(self) -> str:
        rows = [("Rule", "Methods", "Endpoint")]
        for rule in sorted(self._rules, key=lambda rule: (rule.subdomain, rule.rule)):
            methods = "any" if rule.methods is None else ", ".join(sorted(rule.methods))
            place = f"{rule.subdomain}:{rule.rule}" if rule.subdomain else rule.rule
            rows.append((place, methods, rule.endpoint))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) for cell, width in zip(row, widths, strict=True)
            ).rstrip()
            for row in rows
        )

    def __repr__(self) -> str:
        return f"Map({self._rules!r})"


def _path_text(value: Any) -> str:
    return quote(str(value), safe=PATH_SAFE)


def _on_this_host(path: str) -> str:
    """Return a path with one slash in front.

    Two would name another host (RFC 3986, section 4.2).
    """
    return "/" + path.lstrip("/")


def _better(rule: Rule, best: Rule | None) -> bool:
    """Prefer the rule that puts more values into the path, then more defaults."""
    if best is None:
        return True

    return (len(rule.arguments), len(rule.defaults)) > (
        len(best.arguments),
        len(best.defaults),
    )


class MapAdapter:
    """A map bound to one request: matches its path, builds URLs from its place.

    :param server_name: the host that subdomains stand in front of.
    """

    def __init__(self, map: Map, target: Target, server_name: str | None) -> None:
        self.map = map
        self.target = target
        self.server_name = server_name

    @cached_property
    def root(self) -> str:
        """The prefix that the application is mounted at, percent-encoded."""
        root = quote(self.target.script_root, safe=PATH_SAFE)
        return _on_this_host(root) if root else ""

    def subdomain(self) -> str | None:
        """Return the part of the host in front of the server name.

        ``''`` when no rule uses subdomains; None for a foreign host.
        """
        if not self.map.has_subdomains or self.server_name is None:
            return ""

        host = self.target.host.partition(":")[0].lower()
        server = self.server_name.partition(":")[0].lower()
        if host == server:
            return ""

        return host.removesuffix(f".{server}") if host.endswith(f".{server}") else None

    def match_rule(self) -> tuple[Rule, dict[str, Any]]:
        """Return the rule of the request and the values for its view.

        :raises HTTPException: a redirect, 404 or 405.
        """
        path = self.target.path
        try:
            rule, values = self.map.match(path, self.target.method, self.subdomain())
        except SlashRequired:
            path = quote(path, safe=PATH_SAFE)
            raise RequestRedirect(self._here(f"{path}/")) from None

        if rule.redirect_to is not None:
            raise RequestRedirect(self._redirection(rule.redirect_to, values))

        shorter = self.map.preferred(rule, values)
        if shorter is not None:
            raise RequestRedirect(self._here(shorter.build(values)[1]))

        return rule, values

    def match(self) -> tuple[str, dict[str, Any]]:
        """Return endpoint and values of the request.

        :raises HTTPException: a redirect, 404 or 405.
        """
        rule, values = self.match_rule()
        return rule.endpoint, values

    def _here(self, path: str) -> str:
        """Return a path on this host, with the query of the request."""
        url = self.root + path
        if self.target.query_string:
            query = self.target.query_string.decode("latin-1")
            url += "?" + _UNSENDABLE.sub(lambda found: quote(found[0]), query)
        return _on_this_host(url)

    def _redirection(
        self, target: str | Callable[..., str], values: Mapping[str, Any]
    ) -> str:
        if callable(target):
            return target(self, **values)

        url = VARIABLE.sub(lambda m: _path_text(values[m["name"]]), target)
        return self._here(url) if url.startswith("/") else url

    def build(
        self,
        endpoint: str,
        values: Mapping[str, Any] | None = None,
        method: str | None = None,
        force_external: bool = False,
        scheme: str | None = None,
    ) -> str:
        """Return the URL for an endpoint: a path, unless it must name the host.

        :param force_external: with scheme and host.
        :param scheme: the scheme of an external URL; that of the request by
            default.
        :raises BuildError: when no rule suits.
        """
        domain, path = self.map.build(endpoint, values or {}, method)
        url = self.root + path
        if url[:2] == "//":
            url = _on_this_host(url)
        if not force_external and domain == self.subdomain():
            return url

        host = self.server_name or self.target.host
        if domain:
            host = f"{domain}.{host}"
        return f"{scheme or self.target.scheme}://{host}{url}"
