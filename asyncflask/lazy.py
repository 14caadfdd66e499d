"""Attributes that are worked out when they are first asked for.

``functools.cached_property`` of Python 3.11 holds one lock for all instances
while it works, so that a slow form of one request would keep every other
request from its own. This one holds none, and is a good deal quicker. Nor does it
look at ``__dict__``: Python keeps attributes in a compact form, which is the quickest
to read, until somebody asks for them as a dictionary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class cached_property(Generic[T]):
    """Decorate a method; its value takes its place on the instance.

    Threads that ask at the same moment may each work it out; one value stays.
    """

    #: the last class that was found to hold this, and none in its place
    _holder: type | None = None

    def __init__(self, function: Callable[[Any], T]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> cached_property[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is None:
            return self

        value = self._function(instance)
        if owner is self._holder or self._is_held_by(owner):
            object.__setattr__(instance, self._name, value)
        else:  # a subclass has one of its own, and asks for this one
            instance.__dict__[self._name] = value
        return value

    def _is_held_by(self, owner: type) -> bool:
        is_held = getattr(owner, self._name) is self
        if is_held:
            self._holder = owner
        return is_held
